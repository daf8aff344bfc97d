//! The id contract: exactly the pack's ids, each once, each label in the taxonomy.

use super::Fault;
use super::read::Object;
use crate::taxonomy::Taxonomy;

/// Holds the objects of an answer against a pack of `pack_len` items with the ids 1 to `pack_len`. Gives for every item,
/// in order, its category and object, or why it has none.
///
/// When the numbering itself is in doubt, every label may be that of a neighbour, and none is accepted: when an id is of no
/// item (the model counted from another number, or made up an item, first or last), when one id stands twice and another
/// nowhere, or when the first id is missing, or the last though the answer was not cut: then nothing tells an item that was
/// left out from one that was skipped in the counting.
pub(crate) fn check<'o, 'a>(
    objects: &'o [Object<'a>],
    pack_len: usize,
    was_cut: bool,
    taxonomy: &Taxonomy,
) -> Vec<Result<(usize, &'o Object<'a>), Fault>> {
    let absent = match (was_cut, objects.is_empty()) {
        (true, _) => Fault::Cut,
        (false, true) => Fault::Unreadable,
        (false, false) => Fault::Missing,
    };
    let mut slots: Vec<Result<&Object<'a>, Fault>> = vec![Err(absent); pack_len];
    let mut has_foreign = false;
    for object in objects {
        let slot = usize::try_from(object.id).ok().and_then(|id| slots.get_mut(id.checked_sub(1)?));
        match slot {
            Some(slot) if *slot == Err(absent) => *slot = Ok(object),
            Some(slot) => *slot = Err(Fault::Repeated),
            None => has_foreign = true,
        }
    }
    let has_repeated_and_absent = slots.contains(&Err(Fault::Repeated)) && slots.contains(&Err(absent));
    let is_absent = |slot: Option<&Result<_, Fault>>| slot == Some(&Err(absent));
    let has_loose_end = is_absent(slots.first()) || (!was_cut && is_absent(slots.last()));
    let is_unread = objects.is_empty();
    if has_foreign || has_repeated_and_absent || (has_loose_end && !is_unread) {
        return vec![Err(Fault::Shifted); pack_len];
    }
    slots
        .into_iter()
        .map(|slot| {
            let object = slot?;
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
        let checked = check(&reading.objects, pack_len, was_cut, &taxonomy);
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
    fn a_bad_item_does_not_cost_its_neighbours() {
        let found = labels(&answer(&[(1, "sport"), (2, "gossip"), (3, "sport"), (3, "sport")]), 3, false);
        assert_eq!(found, [Ok(0), Err(Fault::UnknownLabel), Err(Fault::Repeated)]);
        let found = labels(&answer(&[(1, "sport"), (2, "gossip"), (4, "sport")]), 4, false);
        assert_eq!(found, [Ok(0), Err(Fault::UnknownLabel), Err(Fault::Missing), Ok(0)]);
    }

    #[test]
    fn three_copies_are_still_repeated() {
        assert_eq!(labels(&answer(&[(1, "sport"), (1, "sport"), (1, "sport")]), 1, false), [Err(Fault::Repeated)]);
    }

    #[test]
    fn a_model_that_counts_from_another_number_is_not_believed() {
        for ids in [[0, 1, 2], [2, 3, 4], [11, 12, 13]] {
            let pairs: Vec<_> = ids.into_iter().map(|id| (id, "sport")).collect();
            assert_eq!(labels(&answer(&pairs), 3, false), [Err(Fault::Shifted); 3], "{ids:?}");
        }
    }

    #[test]
    fn an_invented_item_puts_all_labels_in_doubt_since_it_may_stand_first() {
        assert_eq!(labels(&answer(&[(1, "sport"), (2, "sport"), (3, "sport")]), 2, false), [Err(Fault::Shifted); 2]);
        // Counted from zero, with an invented item at the end: every id of the pack is there, and every label is wrong.
        let ids: Vec<_> = (0..=3).map(|id| (id, "sport")).collect();
        assert_eq!(labels(&answer(&ids), 3, false), [Err(Fault::Shifted); 3]);
    }

    #[test]
    fn a_missing_first_or_last_number_puts_all_in_doubt_unless_the_answer_was_cut() {
        // Counted from zero, and the first left out: the labels are those of the second and third item.
        assert_eq!(labels(&answer(&[(1, "sport"), (2, "sport")]), 3, false), [Err(Fault::Shifted); 3]);
        assert_eq!(labels(&answer(&[(2, "sport"), (3, "sport")]), 3, false), [Err(Fault::Shifted); 3]);
        assert_eq!(labels(&answer(&[(1, "sport"), (3, "sport")]), 3, false), [Ok(0), Err(Fault::Missing), Ok(0)]);
        assert_eq!(labels(&answer(&[(1, "sport"), (2, "sport")]), 3, true), [Ok(0), Ok(0), Err(Fault::Cut)]);
    }

    #[test]
    fn a_number_that_stands_twice_in_place_of_another_puts_all_in_doubt() {
        assert_eq!(labels(&answer(&[(1, "sport"), (1, "sport"), (2, "sport")]), 3, false), [Err(Fault::Shifted); 3]);
    }

    #[test]
    fn a_cut_answer_keeps_its_whole_objects() {
        let cut = answer(&[(1, "sport"), (2, "sci-tech")]);
        assert_eq!(labels(&cut[..cut.len() - 5], 2, true), [Ok(0), Err(Fault::Cut)]);
        assert_eq!(labels("", 2, false), [Err(Fault::Unreadable); 2]);
    }
}
