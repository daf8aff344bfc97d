//! Several categories for an item.

use slugline::server::Request;
use slugline::testing::{Faults, Reply, ScriptedTransport, SimulatedServer};
use slugline::{
    AnswerForm, Categorizer, Category, CategoryId, Descent, EndpointConfig, Escalation, NewsItem, PathEnd, Taxonomy,
};

use crate::support::builder;

fn lists(lists: &[&str]) -> Reply {
    let object = |(id, list): (usize, &&str)| format!("{{\"id\":{id},\"categories\":[{list}]}}");
    Reply::text(&format!("[{}]", (1..).zip(lists).map(object).collect::<Vec<_>>().join(",")))
}

#[tokio::test(start_paused = true)]
async fn the_first_label_is_the_category_and_the_others_stand_beside_it() {
    let server = ScriptedTransport::new(|_| lists(&[r#""sport","business""#, r#""business","business""#]));
    let categorizer = builder(&[&server]).answer_form(AnswerForm::Several(3)).build().unwrap();
    let report = categorizer.categorize([NewsItem::new("a", "one", ""), NewsItem::new("b", "two", "")]).await;
    let of = |at: usize| report.outcomes[at].result.as_ref().unwrap();
    assert_eq!(of(0).category.as_str(), "sport");
    assert_eq!(of(0).secondary, [(CategoryId::from("business"), None)]);
    assert_eq!((of(1).category.as_str(), of(1).secondary.len()), ("business", 0));
    let line = serde_json::to_value(&report.outcomes[0]).unwrap();
    assert_eq!(line["secondary"], serde_json::json!([["business", null]]));
    let request = serde_json::to_value(&server.asked()[0].request).unwrap();
    let schema = &request["response_format"]["json_schema"]["schema"]["items"]["properties"]["categories"];
    assert_eq!((&schema["minItems"], &schema["maxItems"]), (&1.into(), &3.into()));
    insta::assert_snapshot!("prefix_of_several_labels", categorizer.prefix().text());
}

#[tokio::test(start_paused = true)]
async fn an_unknown_label_among_them_is_asked_again() {
    let server = ScriptedTransport::new(|asked| {
        if asked.number == 0 { lists(&[r#""sport","gossip""#]) } else { lists(&[r#""sport""#]) }
    });
    let categorizer = builder(&[&server]).answer_form(AnswerForm::Several(2)).build().unwrap();
    let report = categorizer.categorize([NewsItem::new("a", "one", "")]).await;
    assert_eq!((report.categorized(), report.stats.reasked, server.asked().len()), (1, 1, 2));
}

#[test]
fn what_does_not_go_with_several_labels_is_said_at_once() {
    let server = ScriptedTransport::new(|_| Reply::hang());
    let builder = builder(&[&server]).answer_form(AnswerForm::Several(1)).even_positions(true);
    let error = builder.escalate(Escalation::below(0.5).vote(2)).descend(Descent::default().beam(2)).build();
    let error = error.unwrap_err().to_string();
    for part in ["2 to 8", "cannot be calibrated", "cannot be voted on", "leave the beam at 1"] {
        assert!(error.contains(part), "{part} not in {error}");
    }
}

fn tree() -> Taxonomy {
    let about = |id: &str, words: &str| Category::new(id, id.to_uppercase(), format!("About {words}."));
    Taxonomy::new(
        "t",
        "1",
        [
            about("sport", "athletes matches clubs"),
            about("tennis", "rackets wimbledon").with_parent("sport"),
            about("golf", "fairways caddies").with_parent("sport"),
            about("health", "hospitals vaccines nurses"),
            about("injury", "ligaments fractures").with_parent("health"),
            about("weather", "storms rainfall"),
        ],
    )
    .unwrap()
}

/// A list: up to three labels with a confidence each, under faults, nothing lost.
#[tokio::test(start_paused = true)]
async fn the_simulated_server_gives_several_labels_with_confidence_under_faults() {
    let engine = SimulatedServer::builder().faults(Faults::mix(0.15)).seed(2).engine();
    let endpoint = EndpointConfig::new("http://simulated").transport(engine);
    let builder = Categorizer::builder(tree()).endpoint(endpoint).model("simulated").seed(1);
    let categorizer = builder.answer_form(AnswerForm::Several(3)).build().unwrap();
    let item = |n: usize| match n % 2 {
        0 => NewsItem::new(n.to_string(), format!("rackets wimbledon and ligaments fractures {n}"), ""),
        _ => NewsItem::new(n.to_string(), format!("storms rainfall {n}"), ""),
    };
    let report = categorizer.categorize((0..600).map(item)).await;
    assert_eq!(report.outcomes.len(), 600);
    let mut both = 0;
    for (n, outcome) in report.outcomes.iter().enumerate() {
        let Ok(assignment) = &outcome.result else { continue };
        if n % 2 == 1 {
            assert_eq!((assignment.category.as_str(), assignment.secondary.len()), ("weather", 0));
            continue;
        }
        let mut given = vec![assignment.category.as_str()];
        given.extend(assignment.secondary.iter().map(|(id, _)| id.as_str()));
        given.sort_unstable();
        if given == ["injury", "tennis"] {
            both += 1;
        }
    }
    assert!(both > 250, "{both} of 300 items have both subjects");
    let with_confidence = report.outcomes.iter().filter_map(|outcome| outcome.result.as_ref().ok());
    assert!(with_confidence.flat_map(|of| &of.secondary).filter(|(_, share)| share.is_some()).count() > 200);
}

/// A tree: each label is followed on its own.
#[tokio::test(start_paused = true)]
async fn a_walk_follows_each_label() {
    let server = SimulatedServer::builder().engine();
    let endpoint = EndpointConfig::new("http://simulated").transport(server);
    let builder = Categorizer::builder(tree()).endpoint(endpoint).model("simulated").descend(Descent::default());
    let categorizer = builder.answer_form(AnswerForm::Several(2)).build().unwrap();
    let items = ["athletes matches rackets wimbledon hospitals vaccines ligaments", "storms rainfall"];
    let report = categorizer.categorize(items.map(|text| NewsItem::new(text, text, ""))).await;
    let assignment = report.outcomes[0].result.as_ref().unwrap();
    let mut given = vec![assignment.category.to_string()];
    given.extend(assignment.secondary.iter().map(|(id, _)| id.to_string()));
    given.sort_unstable();
    assert_eq!(given, ["injury", "tennis"]);
    let path = report.outcomes[0].path.as_ref().unwrap();
    assert_eq!(path.steps.last().map(|step| &step.category), Some(&assignment.category));
    // Each further label has a path of its own, with a confidence at each level.
    let [further] = &assignment.secondary_paths[..] else { panic!("{assignment:?}") };
    assert_eq!((further.steps.len(), &further.end), (2, &PathEnd::Leaf));
    assert_eq!(further.steps.last().map(|step| &step.category), assignment.secondary.first().map(|(id, _)| id));
    let along: Option<f32> = further.steps.iter().map(|step| step.confidence).product();
    assert!((along.unwrap() - assignment.secondary[0].1.unwrap()).abs() < 1e-6);
    let line = serde_json::to_value(&report.outcomes[0]).unwrap();
    assert_eq!(line["secondary_paths"][0]["end"], "leaf");
    assert_eq!(line["secondary_paths"][0]["steps"][1][0], line["secondary"][0][0]);
    assert!(report.outcomes[1].result.as_ref().unwrap().secondary.is_empty());
}

#[tokio::test(start_paused = true)]
async fn a_further_label_that_fails_deeper_stays_what_it_was_known_to_be() {
    let server = ScriptedTransport::new(|asked| {
        let Request::Chat(request) = &asked.request else { panic!("no chat request") };
        let prefix = request.messages.0.content.get();
        if prefix.contains("- injury: ") {
            return Reply::status(400, "cannot process this input");
        }
        lists(&[if prefix.contains("- tennis: ") { r#""tennis""# } else { r#""sport","health""# }])
    });
    let endpoint = EndpointConfig::new("http://0").transport(server);
    let builder = Categorizer::builder(tree()).endpoint(endpoint).model("m").descend(Descent::default());
    let categorizer = builder.answer_form(AnswerForm::Several(2)).build().unwrap();
    let report = categorizer.categorize([NewsItem::new("a", "one", "")]).await;
    let assignment = report.outcomes[0].result.as_ref().unwrap();
    let secondary: Vec<_> = assignment.secondary.iter().map(|(id, _)| id.as_str()).collect();
    assert_eq!((assignment.category.as_str(), secondary), ("tennis", vec!["health"]));
    assert_eq!(assignment.secondary_paths[0].end, PathEnd::Failed);
}
