//! Streams in and out: order, backpressure end to end, sources of all kinds. Under paused time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use futures_util::{StreamExt, stream};
use slugline::testing::{Reply, ScriptedTransport};
use slugline::{ErrorKind, NewsItem, Outcome};
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep};

use crate::support::{builder, item, items, label_of, right};

/// Answers right, each request after another time.
fn jittered() -> ScriptedTransport {
    let mut random = fastrand::Rng::with_seed(7);
    ScriptedTransport::new(move |asked| right(asked).after(Duration::from_millis(random.u64(..3_000))))
}

fn check(number: usize, outcome: &Outcome) {
    assert_eq!((outcome.id.as_str(), outcome.index), (format!("item-{number}").as_str(), number as u64));
    assert_eq!(outcome.result.as_ref().unwrap().category.as_str(), label_of(number));
}

#[tokio::test(start_paused = true)]
async fn outcomes_come_in_order_where_that_is_wanted_and_as_completed_else() {
    let categorizer = builder(&[&jittered()]).build().unwrap();
    let mut outcomes = categorizer.stream_ordered(stream::iter(items(500)));
    let mut number = 0;
    while let Some(outcome) = outcomes.next().await {
        check(number, &outcome);
        number += 1;
    }
    assert_eq!((number, outcomes.stats().categorized), (500, 500));
    assert!(outcomes.next().await.is_none(), "an end stays an end");

    let categorizer = builder(&[&jittered()]).build().unwrap();
    let settled: Vec<u64> = categorizer.stream(stream::iter(items(500))).map(|outcome| outcome.index).collect().await;
    assert!(!settled.is_sorted());
}

#[tokio::test(start_paused = true)]
async fn an_item_that_takes_long_holds_the_source_of_an_ordered_stream_at_its_window() {
    for window in [1, 2, 10, 100] {
        let taken = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&taken);
        let source = stream::iter(0..1_000).map(move |number| {
            counter.fetch_add(1, Ordering::SeqCst);
            item(number)
        });
        let mut is_first = true;
        let server = ScriptedTransport::new(move |asked| {
            let is_slow = is_first && asked.items.iter().any(|item| item.ends_with("story 200"));
            is_first &= !is_slow;
            right(asked).after(if is_slow { Duration::from_secs(9) } else { Duration::from_millis(10) })
        });
        let categorizer = builder(&[&server]).build().unwrap();
        let mut outcomes = categorizer.stream_ordered(source).window(window);
        let mut number = 0;
        while let Some(outcome) = outcomes.next().await {
            check(number, &outcome);
            number += 1;
            let ahead = taken.load(Ordering::SeqCst) - number;
            assert!(ahead < window, "{ahead} items ahead in a window of {window}");
        }
        assert_eq!(number, 1_000);
    }
}

#[tokio::test(start_paused = true)]
async fn an_ordered_stream_that_is_stopped_has_an_outcome_for_every_item() {
    let server = ScriptedTransport::new(|asked| right(asked).after(Duration::from_secs(1)));
    let categorizer = builder(&[&server]).build().unwrap();
    let mut outcomes = categorizer.stream_ordered(stream::iter(items(300))).window(50);
    let stop = outcomes.stop_handle();
    let mut number = 0;
    while let Some(outcome) = outcomes.next().await {
        assert_eq!(outcome.index, number);
        number += 1;
        if number == 40 {
            stop.stop();
        }
    }
    assert_eq!(number, 300);
    assert_eq!(outcomes.error().map(slugline::Error::kind), Some(ErrorKind::Stopped));
}

#[tokio::test(start_paused = true)]
async fn a_slow_receiver_slows_the_sender_down_through_channels() {
    let server = ScriptedTransport::new(right);
    let categorizer = builder(&[&server]).concurrency(2).max_concurrency(2).build().unwrap();
    let (to_categorize, mut received) = mpsc::channel(8);
    let (settled, mut outcomes) = mpsc::channel(8);
    let sent = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&sent);
    tokio::spawn(async move {
        for number in 0..2_000 {
            to_categorize.send(item(number)).await.unwrap();
            counter.fetch_add(1, Ordering::SeqCst);
        }
    });
    tokio::spawn(async move {
        let mut stream = categorizer.stream(stream::poll_fn(move |cx| received.poll_recv(cx)));
        while let Some(outcome) = stream.next().await {
            settled.send(outcome).await.unwrap();
        }
    });
    // (4 x requests + 16) x pack size on their way, 64 outcomes and a last pack, both channels, and one item in each hand.
    let bound = (4 * 2 + 16) * 3 + 64 + 3 + 8 + 8 + 2;
    let mut count = 0;
    while let Some(outcome) = outcomes.recv().await {
        assert!(outcome.result.is_ok());
        count += 1;
        let ahead = sent.load(Ordering::SeqCst) - count;
        assert!(ahead <= bound, "{ahead} items between sender and receiver, bound {bound}");
        if count < 1_000 {
            sleep(Duration::from_millis(100)).await;
        }
    }
    assert_eq!(count, 2_000);
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_slow_itself_is_followed() {
    let server = ScriptedTransport::new(|asked| right(asked).after(Duration::from_millis(200)));
    let categorizer = builder(&[&server]).build().unwrap();
    let source = stream::unfold(0, |number| async move {
        sleep(Duration::from_secs(1)).await;
        (number < 20).then(|| ((Instant::now(), item(number)), number + 1))
    });
    let (came, mut times) = mpsc::unbounded_channel();
    let source = source.map(move |(at, item)| {
        came.send(at).unwrap();
        item
    });
    let mut outcomes = categorizer.stream(Box::pin(source));
    let mut number = 0;
    while let Some(outcome) = outcomes.next().await {
        check(number, &outcome);
        let waited = times.recv().await.unwrap().elapsed();
        assert!(waited <= Duration::from_millis(225), "{waited:?}");
        number += 1;
    }
    assert_eq!(number, 20);
}

#[tokio::test(start_paused = true)]
async fn sources_may_be_borrowed_or_moved_to_another_task() {
    let server = ScriptedTransport::new(right);
    let categorizer = builder(&[&server]).build().unwrap();
    let kept = items(20);
    let borrowed: Vec<Outcome> = categorizer.stream(stream::iter(&kept).map(NewsItem::clone)).collect().await;
    assert_eq!(borrowed.len(), kept.len());
    // A stream may come as a trait object, and its items from another future.
    let boxed = stream::iter(kept).then(|item| async { item }).boxed();
    let moved = tokio::spawn(async move { categorizer.stream_ordered(boxed).count().await });
    assert_eq!(moved.await.unwrap(), 20);
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_dropped_cancels_its_requests() {
    let server = ScriptedTransport::new(|_| Reply::hang());
    let categorizer = builder(&[&server]).build().unwrap();
    let mut outcomes = categorizer.stream_ordered(stream::iter(items(30)));
    assert!(tokio::time::timeout(Duration::from_secs(1), outcomes.next()).await.is_err());
    assert_eq!(categorizer.endpoints()[0].in_flight, 1);
    drop(outcomes);
    sleep(Duration::from_millis(1)).await;
    assert_eq!(categorizer.endpoints()[0].in_flight, 0);
}
