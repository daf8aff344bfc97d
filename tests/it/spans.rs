//! What a run tells `tracing`: spans run > pack > attempt, with ids and sizes, never with text.

use std::fmt::Debug;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use slugline::testing::{Reply, ScriptedTransport};
use tracing::field::{Field, Visit};
use tracing::span::{Attributes, Id, Record};
use tracing::{Event, Metadata, Subscriber};

use crate::support::{builder, items, right};

/// Remembers the name and the parent of every span, and all that is said.
#[derive(Clone, Default)]
pub(crate) struct Listener {
    spans: Arc<Mutex<Vec<(&'static str, Option<u64>)>>>,
    said: Arc<Mutex<String>>,
    next: Arc<AtomicU64>,
}

impl Listener {
    /// All fields of spans and events so far, one a line.
    pub(crate) fn said(&self) -> String {
        self.said.lock().unwrap().clone()
    }
}

struct Said<'a>(&'a mut String);

impl Visit for Said<'_> {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        self.0.push_str(&format!("{}={value:?}\n", field.name()));
    }
}

impl Subscriber for Listener {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("slugline")
    }
    fn new_span(&self, span: &Attributes<'_>) -> Id {
        span.record(&mut Said(&mut self.said.lock().unwrap()));
        self.spans.lock().unwrap().push((span.metadata().name(), span.parent().map(Id::into_u64)));
        Id::from_u64(self.next.fetch_add(1, Ordering::SeqCst) + 1)
    }
    fn record(&self, _: &Id, values: &Record<'_>) {
        values.record(&mut Said(&mut self.said.lock().unwrap()));
    }
    fn event(&self, event: &Event<'_>) {
        event.record(&mut Said(&mut self.said.lock().unwrap()));
    }
    fn record_follows_from(&self, _: &Id, _: &Id) {}
    fn enter(&self, _: &Id) {}
    fn exit(&self, _: &Id) {}
}

#[tokio::test(start_paused = true)]
async fn spans_nest_and_hold_no_text() {
    let listener = Listener::default();
    let _listening = crate::support::listen(listener.clone()).await;
    let server = ScriptedTransport::new(|asked| {
        // One attempt fails, and its words repeat the text of an item.
        if asked.number == 1 {
            Reply::status(500, &format!("cannot read {}", asked.items.join(" ")))
        } else {
            right(asked)
        }
    });
    let report = builder(&[&server]).build().unwrap().categorize(items(9)).await;
    assert_eq!(report.categorized(), 9);

    let spans = listener.spans.lock().unwrap().clone();
    let count = |name| spans.iter().filter(|span| span.0 == name).count();
    // Three packs, a retry, and perhaps a canary, which belongs to the run itself.
    assert_eq!((count("run"), count("pack"), count("attempt") as u64), (1, 3, report.stats.requests));
    for (name, parent) in &spans {
        let parent = parent.map(|id| spans[id as usize - 1].0);
        match *name {
            "run" => assert_eq!(parent, None),
            "pack" => assert_eq!(parent, Some("run")),
            _ => assert!(matches!(parent, Some("pack" | "run")), "{name} below {parent:?}"),
        }
    }
    let said = listener.said.lock().unwrap().clone();
    assert!(said.contains("text_tokens=") && said.contains("first_item="), "{said}");
    assert!(!said.contains("story"), "{said}");
    // An attempt speaks the language of OpenTelemetry's conventions for clients of models.
    for field in [
        "gen_ai.operation.name=\"chat\"",
        "gen_ai.request.model=m",
        "gen_ai.request.max_tokens=",
        "gen_ai.usage.input_tokens=100",
        "gen_ai.usage.output_tokens=20",
        "error.type=server error",
    ] {
        assert!(said.contains(field), "{field} not in {said}");
    }
}
