//! The id contract: exactly the pack's ids, each once, each label in the taxonomy.

use super::Fault;
use super::read::{Object, Reading};
use crate::taxonomy::Taxonomy;

/// Holds an answer against a pack of `pack_len` items with the ids 1 to `pack_len`. Gives for every item, in order, its
/// category and object, or why it has none.
///
/// A whole answer has as many objects as there are items, with each id once, in any order. A cut one has the ids from 1 on
/// in their order. In any other the numbering itself is in doubt, so that every label may be that of a neighbour, and none
/// is accepted: an id that is left out may have been skipped in the counting, and one that stands twice, or is of no item,
/// may have shifted what follows. A label that is none costs its item alone.
pub(crate) fn check<'o, 'a>(
    reading: &'o Reading<'a>,
    pack_len: usize,
    was_cut: bool,
    taxonomy: &Taxonomy,
) -> Vec<Result<(usize, &'o Object<'a>), Fault>> {
    let objects = &reading.objects;
    let absent = match (was_cut, objects.is_empty()) {
        (true, _) => Fault::Cut,
        (false, true) => Fault::Unreadable,
        (false, false) => Fault::Missing,
    };
    let mut slots: Vec<Result<&Object<'a>, Fault>> = vec![Err(absent); pack_len];
    for object in objects {
        let slot = usize::try_from(object.id).ok().and_then(|id| slots.get_mut(id.checked_sub(1)?));
        if let Some(slot) = slot {
            *slot = if *slot == Err(absent) { Ok(object) } else { Err(Fault::Repeated) };
        }
    }
    let is_whole = objects.len() == pack_len && slots.iter().all(Result::is_ok);
    let is_beginning = was_cut && objects.iter().map(|object| object.id).eq(1..=objects.len() as u64);
    let has_more = objects.len() + usize::from(reading.is_torn) > pack_len;
    let is_numbered = (is_whole || is_beginning) && !has_more;
    slots
        .into_iter()
        .map(|slot| {
            let object = slot?;
            if !is_numbered {
                return Err(Fault::Shifted);
            }
            let category = taxonomy.position(&object.label).ok_or(Fault::UnknownLabel)?;
            Ok((category, object))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::read::read;
    use super::*;
    use crate::Category;

    fn labels(text: &str, pack_len: usize, was_cut: bool) -> Vec<Result<usize, Fault>> {
        let taxonomy = Taxonomy::new(
            "t",
            "1",
            [Category::new("sport", "Sport", "Games."), Category::new("sci-tech", "Sci/Tech", "Science.")],
        )
        .unwrap();
        let reading = read(text, pack_len);
        let checked = check(&reading, pack_len, was_cut, &taxonomy);
        checked.into_iter().map(|slot| slot.map(|(category, _)| category)).collect()
    }

    fn answer(pairs: &[(u64, &str)]) -> String {
        let objects: Vec<_> =
            pairs.iter().map(|(id, label)| format!("{{\"id\":{id},\"category\":\"{label}\"}}")).collect();
        format!("[{}]", objects.join(","))
    }

    #[test]
    fn ids_decide_not_positions() {
        assert_eq!(labels(&answer(&[(2, "sport"), (1, "sci-tech")]), 2, false), [Ok(1), Ok(0)]);
    }

    #[test]
    fn spelling_variants_of_a_label_are_the_label() {
        assert_eq!(labels(&answer(&[(1, "Sci/Tech"), (2, " SPORT ")]), 2, false), [Ok(1), Ok(0)]);
        assert_eq!(labels(&answer(&[(1, "sports"), (2, "")]), 2, false), [Err(Fault::UnknownLabel); 2]);
    }

    #[test]
    fn a_label_that_is_none_does_not_cost_the_neighbours_theirs() {
        let found = labels(&answer(&[(1, "sport"), (2, "gossip"), (3, "sport")]), 3, false);
        assert_eq!(found, [Ok(0), Err(Fault::UnknownLabel), Ok(0)]);
        let found = labels(r#"[{"id":1,"category":null},{"id":2,"category":"sport"}]"#, 2, false);
        assert_eq!(found, [Err(Fault::UnknownLabel), Ok(0)]);
    }

    #[test]
    fn whatever_is_wrong_with_the_numbers_puts_all_labels_in_doubt() {
        use Fault::{Missing, Repeated, Shifted};
        let cases: [(&[u64], [Fault; 3]); 10] = [
            // Counted from another number.
            (&[0, 1, 2], [Shifted, Shifted, Missing]),
            (&[2, 3, 4], [Missing, Shifted, Shifted]),
            (&[11, 12, 13], [Missing; 3]),
            // Made up at the end, or at the front of what was counted from zero.
            (&[1, 2, 3, 4], [Shifted; 3]),
            (&[0, 1, 2, 3], [Shifted; 3]),
            // Left out, or skipped in the counting and ended where the items end.
            (&[1, 2], [Shifted, Shifted, Missing]),
            (&[2, 3], [Missing, Shifted, Shifted]),
            (&[1, 3], [Shifted, Missing, Shifted]),
            // Counted twice, and made up at the end to come to the last number.
            (&[1, 1, 2], [Repeated, Shifted, Missing]),
            (&[1, 2, 2, 3], [Shifted, Repeated, Shifted]),
        ];
        for (ids, expected) in cases {
            let pairs: Vec<_> = ids.iter().map(|&id| (id, "sport")).collect();
            assert_eq!(labels(&answer(&pairs), 3, false), expected.map(Err), "{ids:?}");
        }
        assert_eq!(labels(&answer(&[(1, "sport"), (1, "sport"), (1, "sport")]), 1, false), [Err(Repeated)]);
        // An object whose number cannot be read is one all the same.
        let odd = r#"[{"id":1,"category":"sport"},{"id":2,"category":"sport"},{"id":null,"category":"sport"}]"#;
        assert_eq!(labels(odd, 3, false), [Err(Shifted), Err(Shifted), Err(Missing)]);
        // And so is one that does not end.
        let more = answer(&[(1, "sport"), (2, "sport"), (3, "sport")]);
        for was_cut in [true, false] {
            assert_eq!(labels(&more[..more.len() - 3], 2, was_cut), [Err(Shifted); 2]);
        }
    }

    #[test]
    fn a_cut_answer_keeps_its_whole_objects() {
        let cut = answer(&[(1, "sport"), (2, "sci-tech")]);
        assert_eq!(labels(&cut[..cut.len() - 5], 2, true), [Ok(0), Err(Fault::Cut)]);
        // Those that stand in their order from the first on, since an id may also be skipped.
        let shifted = [Err(Fault::Shifted), Err(Fault::Cut), Err(Fault::Shifted), Err(Fault::Cut)];
        assert_eq!(labels(&answer(&[(1, "sport"), (3, "sport")]), 4, true), shifted);
        assert_eq!(labels(&answer(&[(3, "sport"), (1, "sport")]), 4, true), shifted);
        assert_eq!(labels(&(answer(&[(1, "sport"), (2, "sport")]) + "\n\n"), 2, true), [Ok(0); 2]);
        assert_eq!(labels("", 2, false), [Err(Fault::Unreadable); 2]);
    }

    /// What a model or its server may do wrong with an answer in which item `n` rightly has the label `cn`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
    enum Slip {
        None,
        CountsFromZero,
        CountsFromTwo,
        DropsOne,
        SaysOneTwice,
        SaysOneTwiceWithAnotherLabel,
        MakesOneUpInFront,
        MakesOneUpAtTheEnd,
        SkipsANumber,
        CountsANumberTwice,
        IsCut,
        IsCutWithoutSayingSo,
        Shuffles,
        HasNoLabelOnce,
        HasNoNumberOnce,
        HasAnotherLabelOnce,
        HasANegativeNumber,
    }

    const MADE_UP: &str = "c9";

    fn slip(slip: Slip, objects: &mut Vec<(String, String)>, random: &mut fastrand::Rng) {
        let Some(last) = objects.len().checked_sub(1) else { return };
        let at = random.usize(..=last);
        let add = |objects: &mut [(String, String)], more: i64| {
            for (id, _) in objects {
                if let Ok(number) = id.parse::<i64>() {
                    *id = (number + more).to_string();
                }
            }
        };
        match slip {
            Slip::CountsFromZero => add(objects, -1),
            Slip::CountsFromTwo => add(objects, 1),
            Slip::DropsOne => drop(objects.remove(at)),
            Slip::SaysOneTwice => objects.insert(random.usize(at..=last) + 1, objects[at].clone()),
            Slip::SaysOneTwiceWithAnotherLabel => {
                let again = (objects[at].0.clone(), MADE_UP.to_owned());
                objects.insert(random.usize(at..=last) + 1, again);
            }
            Slip::MakesOneUpInFront => {
                add(objects, 1);
                objects.insert(0, ("1".into(), MADE_UP.into()));
            }
            Slip::MakesOneUpAtTheEnd => {
                let next = objects[last].0.parse::<i64>().unwrap_or(0) + 1;
                objects.push((next.to_string(), MADE_UP.into()));
            }
            Slip::SkipsANumber => add(&mut objects[at..], 1),
            Slip::CountsANumberTwice => add(&mut objects[at..], -1),
            Slip::Shuffles => random.shuffle(objects),
            Slip::HasNoLabelOnce => objects[at].1 = "null".into(),
            Slip::HasNoNumberOnce => objects[at].0 = "null".into(),
            Slip::HasAnotherLabelOnce => objects[at].1 = "gossip".into(),
            Slip::HasANegativeNumber => objects[at].0 = "-1".into(),
            Slip::None | Slip::IsCut | Slip::IsCutWithoutSayingSo => {}
        }
    }

    /// Whether an item may get the label of another, or one that was made up.
    fn misleads(slips: [Slip; 2], taxonomy: &Taxonomy, random: &mut fastrand::Rng) -> bool {
        let pack_len = random.usize(1..=6);
        let mut objects: Vec<_> = (0..pack_len).map(|n| ((n + 1).to_string(), format!("c{n}"))).collect();
        slips.into_iter().for_each(|one| slip(one, &mut objects, random));
        let written = |(id, label): &(String, String)| match label.as_str() {
            "null" => format!("{{\"id\":{id},\"category\":null}}"),
            label => format!("{{\"id\":{id},\"category\":\"{label}\"}}"),
        };
        let mut text = format!("[{}]", objects.iter().map(written).collect::<Vec<_>>().join(","));
        let was_cut = slips.contains(&Slip::IsCut);
        if was_cut || slips.contains(&Slip::IsCutWithoutSayingSo) {
            text.truncate(random.usize(..text.len()));
        }
        let reading = read(&text, pack_len);
        let checked = check(&reading, pack_len, was_cut, taxonomy);
        (0..).zip(checked).any(|(item, found)| found.is_ok_and(|(category, _)| category != item))
    }

    #[test]
    fn one_slip_never_gives_an_item_a_wrong_label_and_two_only_where_they_look_like_a_right_answer() {
        use Slip::*;
        const ALL: [Slip; 17] = [
            None,
            CountsFromZero,
            CountsFromTwo,
            DropsOne,
            SaysOneTwice,
            SaysOneTwiceWithAnotherLabel,
            MakesOneUpInFront,
            MakesOneUpAtTheEnd,
            SkipsANumber,
            CountsANumberTwice,
            IsCut,
            IsCutWithoutSayingSo,
            Shuffles,
            HasNoLabelOnce,
            HasNoNumberOnce,
            HasAnotherLabelOnce,
            HasANegativeNumber,
        ];
        let ids: Vec<_> = (0..10).map(|n| format!("c{n}")).collect();
        let categories = ids.iter().map(|id| Category::new(id.as_str(), id.as_str(), "Text."));
        let taxonomy = Taxonomy::new("t", "1", categories).unwrap();
        let mut random = fastrand::Rng::with_seed(7);
        let mut found = std::collections::BTreeSet::new();
        for first in ALL {
            for second in ALL {
                if (0..300).any(|_| misleads([first, second], &taxonomy, &mut random)) {
                    found.insert((first.min(second), first.max(second)));
                }
            }
        }
        let indistinguishable = [
            (DropsOne, SaysOneTwiceWithAnotherLabel),
            (DropsOne, MakesOneUpInFront),
            (DropsOne, MakesOneUpAtTheEnd),
            (MakesOneUpInFront, IsCut),
            (MakesOneUpInFront, IsCutWithoutSayingSo),
        ];
        assert_eq!(found, indistinguishable.into());
    }
}
