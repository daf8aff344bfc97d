//! Disks that fail, which no real file does on demand, and what must never change.

use std::collections::BTreeMap;
use std::io::{self, ErrorKind};
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use super::*;
use crate::dedup::TextHash;
use crate::error::{Error, ItemErrorKind};
use crate::outcome::Report;
use crate::prompt::clean::CleanText;
use crate::testing::{Reply, ScriptedTransport};
use crate::{Categorizer, EndpointConfig, NewsItem};

/// A disk in memory with so much room.
#[derive(Clone)]
struct Disk(Arc<Mutex<Content>>);

struct Content {
    bytes: Vec<u8>,
    room: usize,
    /// The syncs that still work.
    syncs: usize,
    panics: bool,
}

impl Disk {
    fn new(room: usize) -> Self {
        Self(Arc::new(Mutex::new(Content { bytes: Vec::new(), room, syncs: usize::MAX, panics: false })))
    }

    fn with<T>(&self, look: impl FnOnce(&mut Content) -> T) -> T {
        look(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn open(&self, policy: SyncPolicy) -> Ledger {
        let disk = Box::new(self.clone());
        Ledger::options().sync(policy).open_storage(Path::new("full/night.ledger"), disk, None).unwrap()
    }
}

impl Storage for Disk {
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|disk| {
            assert!(!disk.panics, "as the test wants it");
            let free = disk.room.saturating_sub(offset as usize);
            disk.bytes.write_at(offset, &bytes[..bytes.len().min(free)])?;
            if bytes.len() > free { Err(ErrorKind::StorageFull.into()) } else { Ok(()) }
        })
    }

    fn sync(&mut self) -> io::Result<()> {
        self.with(|disk| {
            disk.syncs = disk.syncs.checked_sub(1).ok_or_else(|| io::Error::other("the disk is gone"))?;
            Ok(())
        })
    }

    fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.with(|disk| disk.bytes.read_at(offset, buffer))
    }

    fn cut(&mut self, len: u64) -> io::Result<()> {
        self.with(|disk| disk.bytes.cut(len))
    }
}

fn server() -> ScriptedTransport {
    ScriptedTransport::new(|asked| {
        Reply::labels(asked.items.iter().map(|_| "a")).after(std::time::Duration::from_millis(20))
    })
}

async fn run(ledger: &Ledger, server: &ScriptedTransport, items: usize) -> Report {
    let endpoint = EndpointConfig::new("http://e").transport(server.clone());
    let builder = Categorizer::builder(record::tests::taxonomy()).endpoint(endpoint).model("m").ledger(ledger.clone());
    // Every second item is a copy of the one before.
    let items = (0..items).map(|n| NewsItem::new(format!("{n}"), format!("story {}", n / 2), ""));
    builder.build().unwrap().categorize(items).await
}

/// Every item has its outcome, and those with a category are in the ledger: a run over the same disk, with room now, finds
/// all of them. Gives their number.
async fn check(report: &Report, items: usize, disk: &Disk) -> usize {
    assert_eq!(report.outcomes.len(), items);
    for (number, outcome) in report.outcomes.iter().enumerate() {
        assert_eq!(outcome.index, number as u64);
        assert!(
            outcome.result.as_ref().is_ok_and(|a| a.category.as_str() == "a")
                || outcome.result.as_ref().is_err_and(|error| error.kind == ItemErrorKind::NotAttempted)
        );
    }
    disk.with(|disk| (disk.room, disk.syncs, disk.panics) = (usize::MAX, usize::MAX, false));
    let again = run(&disk.open(SyncPolicy::Group), &server(), items).await;
    assert!(again.error.is_none());
    for (before, after) in report.outcomes.iter().zip(&again.outcomes) {
        let is_from_ledger = after.result.as_ref().unwrap().origin.from_ledger;
        assert!(before.result.is_err() || is_from_ledger, "handed on and not written: {}", before.id);
    }
    report.categorized()
}

#[tokio::test(start_paused = true)]
async fn a_full_disk_ends_the_run_and_nothing_unwritten_is_handed_on() {
    let mut most = 0;
    for room in [20, 1_500, 1_537, 4_000] {
        for policy in [SyncPolicy::Group, SyncPolicy::System] {
            let disk = Disk::new(room);
            let ledger = disk.open(policy);
            let server = server();
            let report = run(&ledger, &server, 300).await;
            let Some(Error::Ledger(error)) = &report.error else { panic!("{:?}", report.error) };
            assert!(matches!(error.kind(), LedgerErrorKind::Full { .. }));
            let words = error.to_string();
            assert!(words.contains("full/night.ledger") && words.contains("make room"), "{words}");
            // The same ledger refuses the next run before anything is asked.
            let before = server.asked().len();
            let next = run(&ledger, &server, 10).await;
            assert!(matches!(next.error, Some(Error::Ledger(_))) && next.categorized() == 0);
            assert_eq!(server.asked().len(), before);
            drop(ledger);
            most = most.max(check(&report, 300, &disk).await);
        }
    }
    assert!((20..300).contains(&most), "what fits is handed on: {most}");
}

#[tokio::test(start_paused = true)]
async fn a_sync_that_fails_makes_nothing_safe() {
    let disk = Disk::new(usize::MAX);
    let ledger = disk.open(SyncPolicy::Group);
    disk.with(|disk| disk.syncs = 3);
    let report = run(&ledger, &server(), 300).await;
    let Some(Error::Ledger(error)) = &report.error else { panic!("{:?}", report.error) };
    assert_eq!(error.kind(), &LedgerErrorKind::Io { action: "write", reason: "the disk is gone".into() });
    drop(ledger);
    check(&report, 300, &disk).await;
}

#[tokio::test(start_paused = true)]
async fn a_thread_that_breaks_down_leaves_nobody_waiting() {
    let disk = Disk::new(usize::MAX);
    let ledger = disk.open(SyncPolicy::Group);
    run(&ledger, &server(), 10).await;
    disk.with(|disk| disk.panics = true);
    let report = run(&ledger, &server(), 100).await;
    let Some(Error::Ledger(error)) = &report.error else { panic!("{:?}", report.error) };
    assert_eq!(error.kind(), &LedgerErrorKind::Broken);
    drop(ledger);
    // Those that were read before the thread met the first write: how many is up to the two threads.
    assert!(check(&report, 100, &disk).await <= 10);
}

#[test]
fn the_words_of_a_question_are_part_of_the_format() {
    let taxonomy = record::tests::taxonomy();
    let prefix = crate::prompt::Prefix::new(&taxonomy);
    let asking = Asking {
        taxonomy: &taxonomy,
        prompt_version: prefix.version(),
        answer_form: crate::AnswerForm::Objects,
        is_level: false,
        api: crate::Api::Chat,
        has_confidence: true,
        temperature: 0.0,
        request_fields: &BTreeMap::new(),
        evens_positions: false,
        labels_with_parents: false,
        is_across_versions: false,
        escalation: None,
        calibrations: &[],
    };
    let words = asking.text("m").replace(prefix.version().as_str(), "P").replace(taxonomy.hash(), "T");
    assert_eq!(
        words,
        "taxonomy=T\nprompt=P\nmodel=m\napi=chat\nconfidence=true\ntemperature=0\neven-positions=false\n"
    );
}

#[test]
fn keys_are_part_of_the_format() {
    let text = CleanText { title: "Cup final".into(), body: "A late goal.".into(), tokens: 9 };
    let key = Key::new(&blake3::hash(b"model=m\n"), TextHash::of(&text));
    assert_eq!(format!("{:032x}", u128::from_be_bytes(*key.as_bytes())), "5aba6c81e7d4a2dd8f0452d5be04d22e");
}

/// The file was written by the first version of the format and is never changed: all that it holds must be found for ever.
#[test]
fn the_first_format_is_read() {
    let fixture = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/ledger/format-1.ledger");
    let disk = Disk::new(usize::MAX);
    disk.with(|disk| disk.bytes = std::fs::read(fixture).unwrap());
    let stats = disk.open(SyncPolicy::Group).stats();
    assert_eq!((stats.answers, stats.failures, stats.damaged_bytes, stats.torn_bytes), (5, 1, 0, 0));
    let taxonomy = record::tests::taxonomy();
    let prefix = crate::prompt::Prefix::new(&taxonomy);
    let (mut answers, mut failures) = (Vec::new(), Vec::new());
    disk.with(|disk| {
        log::scan(&mut disk.bytes, |_, payload| match read(payload, &taxonomy, prefix.version()).unwrap() {
            Ok(answer) => answers.push(answer),
            Err(failure) => failures.push(failure),
        })
        .unwrap();
    });
    let mut categories: Vec<_> = answers.iter().map(|answer| answer.category.as_str()).collect();
    categories.sort_unstable();
    assert_eq!(categories, ["a", "a", "b", "c", "c"]);
    for answer in &answers {
        // The third category is also the one that has the rest of each answer's probability.
        let is_third = answer.category.as_str() == "c";
        let (confidence, others) = if is_third { (1.0, 0) } else { (0.75, 1) };
        assert_eq!((answer.confidence, answer.runners_up.len()), (Some(confidence), others));
        assert_eq!((&*answer.origin.endpoint, &*answer.origin.model), ("http://0", "m"));
        assert!(answer.origin.from_ledger && (1..=3).contains(&answer.origin.position));
    }
    let [failure] = &failures[..] else { panic!("{failures:?}") };
    assert_eq!(failure.kind, ItemErrorKind::Rejected);
    assert!(failure.to_string().ends_with("HTTP 422, \"bad item\""), "{failure}");
}
