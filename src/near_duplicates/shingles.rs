//! A text as the set of its shingles: short runs of letters that overlap.

use crate::prompt::clean::CleanText;

/// How wide a shingle is: five letters, or three of a script that writes a syllable or a word in one. Measured on real
/// reprints, runs of letters found more of them than runs of words did, and they need no blanks between words.
const WIDTH: u32 = 5;
/// The fewest shingles that are worth comparing: about a headline. In shorter texts a single word makes another story.
const FEWEST: usize = 40;

/// The letters and digits of a text in lower case: what punctuation, blanks and case make of it does not count.
pub(super) fn fold(text: &CleanText) -> String {
    let letters = text.title.chars().chain(text.body.chars()).filter(|c| c.is_alphanumeric());
    letters.flat_map(char::to_lowercase).collect()
}

/// The hashes of the different shingles of a folded text, sorted; none of a text that is too short to compare.
pub(super) fn shingles(folded: &str) -> Option<Vec<u64>> {
    let letters: Vec<char> = folded.chars().collect();
    let mut hashes = Vec::with_capacity(letters.len());
    for start in 0..letters.len() {
        let (mut width, mut hash) = (0, 0);
        for &letter in &letters[start..] {
            width += width_of(letter);
            hash = mixed(hash ^ u64::from(letter));
            if width >= WIDTH {
                hashes.push(hash);
                break;
            }
        }
    }
    hashes.sort_unstable();
    hashes.dedup();
    (hashes.len() >= FEWEST).then_some(hashes)
}

/// The share of shingles that two texts have in common, among all that either has (Jaccard, 1901).
pub(super) fn similarity(a: &[u64], b: &[u64]) -> f64 {
    let (mut at_a, mut at_b, mut common) = (0, 0, 0_usize);
    while let (Some(left), Some(right)) = (a.get(at_a), b.get(at_b)) {
        common += usize::from(left == right);
        at_a += usize::from(left <= right);
        at_b += usize::from(right <= left);
    }
    common as f64 / (a.len() + b.len() - common).max(1) as f64
}

/// A step of SplitMix64 (Steele, Lea and Flood, 2014): spreads every bit over all others.
pub(super) fn mixed(bits: u64) -> u64 {
    let bits = bits.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// Two for ideographs, kana and hangul, else one.
fn width_of(letter: char) -> u32 {
    let is_wide = matches!(letter, '\u{2e80}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}' | '\u{f900}'..='\u{faff}'
        | '\u{20000}'..='\u{3ffff}');
    if is_wide { 2 } else { 1 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::NewsItem;

    fn shingles_of(body: &str) -> Vec<u64> {
        let text = CleanText::of(&NewsItem::new("a", "", body), 150).unwrap();
        shingles(&fold(&text)).unwrap()
    }

    #[test]
    fn quotes_blanks_and_case_do_not_count() {
        let plain = "The minister said 'no' - again - to the plan for a longer runway at the city's airport.";
        let set = "THE MINISTER said \u{2018}no\u{2019}\u{2014}again\u{2014}to the plan for a longer  runway at the city\u{2019}s airport";
        assert!(similarity(&shingles_of(plain), &shingles_of(set)) > 0.999);
    }

    #[test]
    fn the_similarity_is_that_of_sets() {
        let near = |expected: f64, a: &[u64], b: &[u64]| assert!((similarity(a, b) - expected).abs() < 1e-9);
        near(0.5, &[1, 2, 3], &[2, 3, 4]);
        near(0.0, &[1, 2], &[3]);
        near(1.0, &[1, 2], &[1, 2]);
        near(0.0, &[], &[]);
    }

    #[test]
    fn scripts_without_blanks_have_shingles_and_short_texts_have_none() {
        let chinese =
            "市议会周二晚间以微弱多数通过了新机场跑道的建设计划反对者表示费用至今不明并将在下周向法院提出申诉";
        assert!(shingles_of(chinese).len() >= FEWEST);
        assert_eq!(shingles(""), None);
        assert_eq!(shingles("cupfinaltonight"), None);
    }
}
