//! Answer forms, calibration and escalation.

use slugline::calibration::{Calibration, CalibrationError};
use slugline::server::Request;
use slugline::testing::{Asked, Reply, ScriptedTransport, SimulatedServer};
use slugline::{AnswerForm, Assignment, Categorizer, EndpointConfig, Error, Escalation, NewsItem, Report};

use crate::support::{builder, check_all_there, items, right_label, taxonomy};

/// Gives the right label this probability, and the rest to the next label.
fn sure(item: &str, share: f64) -> Vec<(&'static str, f64)> {
    let labels = ["sport", "business", "other"];
    let right = labels.iter().position(|label| *label == right_label(item)).unwrap_or(2);
    vec![(labels[right], share), (labels[(right + 1) % 3], 1.0 - share)]
}

fn assignments(report: &Report) -> Vec<&Assignment> {
    report.outcomes.iter().map(|outcome| outcome.result.as_ref().expect("a category")).collect()
}

#[tokio::test(start_paused = true)]
async fn a_category_without_a_number_answers_a_single_item() {
    let answer = |label: &str| format!(r#"[{{"category":"{label}"}}]"#);
    let server = ScriptedTransport::new(move |asked| Reply::text(&answer(right_label(&asked.items[0]))));
    let categorizer = builder(&[&server]).pack_size(1).answer_form(AnswerForm::Category).build().unwrap();
    let report = categorizer.categorize(items(6)).await;
    check_all_there(&report, 6);
    assert_eq!((report.categorized(), server.asked().len()), (6, 6));
    let Request::Chat(request) = &server.asked()[0].request else { panic!("no chat request") };
    let format = request.options.response_format.as_ref().unwrap().get();
    let schema = r#""items":{"type":"object","properties":{"category":{"type":"string","enum":["sport","business","other"]}},"required":["category"]"#;
    assert!(format.contains(schema), "{format}");
    assert!(categorizer.prefix().text().contains(r#"for example [{"category":"business"}]."#));
}

#[tokio::test(start_paused = true)]
async fn a_bare_label_answers_a_single_item() {
    let server = ScriptedTransport::new(|asked| Reply::text(&format!("[\"{}\"]", right_label(&asked.items[0]))));
    let categorizer = builder(&[&server]).pack_size(1).answer_form(AnswerForm::Bare).build().unwrap();
    let report = categorizer.categorize(items(6)).await;
    check_all_there(&report, 6);
    assert_eq!((report.categorized(), server.asked().len()), (6, 6));
    let Request::Chat(request) = &server.asked()[0].request else { panic!("no chat request") };
    let format = request.options.response_format.as_ref().unwrap().get();
    assert!(format.contains(r#""items":{"type":"string","enum":["sport","business","other"]}"#), "{format}");
    assert!(categorizer.prefix().text().contains("for example [\"business\"]."));
}

#[tokio::test(start_paused = true)]
async fn an_answer_without_numbers_and_with_two_labels_is_not_believed() {
    for (form, answer) in [
        (AnswerForm::Bare, r#"["sport","business"]"#),
        (AnswerForm::Category, r#"[{"category":"sport"},{"category":"business"}]"#),
    ] {
        let server = ScriptedTransport::new(move |_| Reply::text(answer));
        let categorizer = builder(&[&server]).pack_size(1).answer_form(form).build().unwrap();
        let report = categorizer.categorize(items(1)).await;
        assert_eq!(report.outcomes[0].result.as_ref().unwrap_err().kind.as_str(), "repeated", "{form}");
    }
}

#[test]
fn labels_without_numbers_in_packs_are_refused() {
    let server = ScriptedTransport::new(|_| Reply::hang());
    for form in [AnswerForm::Bare, AnswerForm::Category] {
        let error = builder(&[&server]).answer_form(form).build().unwrap_err();
        assert!(error.to_string().contains("set the pack size to 1"), "{error}");
    }
}

#[tokio::test]
async fn the_simulated_server_answers_in_every_form_with_confidence() {
    for (form, pack_size) in [(AnswerForm::Bare, 1), (AnswerForm::Category, 1), (AnswerForm::Objects, 3)] {
        let endpoint = EndpointConfig::new("simulated").transport(SimulatedServer::builder().engine());
        let categorizer = Categorizer::builder(taxonomy())
            .endpoint(endpoint)
            .model("simulated")
            .pack_size(pack_size)
            .answer_form(form)
            .build()
            .unwrap();
        let report = categorizer.categorize([NewsItem::new("a", "Athletes win their matches", "")]).await;
        let assignment = assignments(&report)[0];
        assert_eq!(assignment.category.as_str(), "sport", "{form}");
        assert!(assignment.confidence.is_some_and(|confidence| confidence > 0.5), "{form}");
        let total: f32 = assignment.probabilities.iter().map(|(_, share)| share).sum();
        assert!((total - 1.0).abs() < 0.01, "{form}");
    }
}

/// A model that answers "sport" for whatever stands third in a pack, though not with all its mind.
fn third_is_sport(asked: &Asked) -> Reply {
    Reply::probabilities(asked.items.iter().enumerate().map(|(position, item)| {
        if !["sport", "business", "other"].contains(&right_label(item)) {
            return if position == 2 { vec![("sport", 0.8), ("business", 0.1), ("other", 0.1)] } else { even() };
        }
        let mut shares = sure(item, 0.7);
        if position == 2 && shares[0].0 != "sport" {
            shares = vec![("sport", 0.6), (shares[0].0, 0.4)];
        }
        shares
    }))
}

fn even() -> Vec<(&'static str, f64)> {
    vec![("sport", 0.34), ("business", 0.33), ("other", 0.33)]
}

#[tokio::test(start_paused = true)]
async fn a_measured_prior_corrects_the_labels_and_says_so() {
    let server = ScriptedTransport::new(third_is_sport);
    let plain = builder(&[&server]).build().unwrap();
    let before = plain.categorize(items(90)).await;
    let is_wrong = |(number, assignment): &(usize, &&Assignment)| {
        assignment.category.as_str() != crate::support::label_of(*number)
    };
    let wrong = assignments(&before).iter().enumerate().filter(is_wrong).count();
    assert!(wrong >= 15, "the habit of the model shows: {wrong}");

    let prior = plain.measure_prior().await.unwrap();
    assert_eq!((prior.model(), prior.pack_sizes()), ("m", vec![1, 3]));
    let prior = Calibration::from_toml(&prior.to_toml()).unwrap();
    let report = builder(&[&server]).calibration(prior.clone()).build().unwrap().categorize(items(90)).await;
    check_all_there(&report, 90);
    let changed: Vec<_> = assignments(&report).into_iter().filter(|a| a.origin.written.is_some()).collect();
    assert_eq!((changed.len() as u64, changed.len()), (report.stats.relabelled, wrong));
    for assignment in changed {
        let origin = &assignment.origin;
        assert_eq!((origin.position, origin.written.as_ref().unwrap().as_str()), (3, "sport"));
        assert_eq!(origin.calibration.as_deref(), Some(prior.version().as_str()));
        assert_eq!(assignment.probabilities[0].0.as_str(), "sport", "the model's own stay as they were");
        assert!(assignment.confidence.unwrap() > 0.5);
    }
}

#[tokio::test(start_paused = true)]
async fn a_run_evens_its_positions_out() {
    let server = ScriptedTransport::new(third_is_sport);
    let categorizer = builder(&[&server]).even_positions(true).build().unwrap();
    // Each third item is about the same: the order of a source must not pass for a habit of the model.
    let report = categorizer.categorize(items(600)).await;
    let late = assignments(&report).into_iter().enumerate().skip(300);
    let right = late.filter(|(number, a)| a.category.as_str() == crate::support::label_of(*number)).count();
    assert!(right >= 290, "{right} of 300");
    assert!(report.stats.relabelled > 50, "{}", report.stats.relabelled);
}

#[tokio::test(start_paused = true)]
async fn a_calibration_that_does_not_fit_is_refused() {
    let server = ScriptedTransport::new(third_is_sport);
    let prior = builder(&[&server]).build().unwrap().measure_prior().await.unwrap();
    for (from, to, problem) in [
        ("model = \"m\"", "model = \"n\"", "no endpoint has the model n"),
        ("taxonomy = \"", "taxonomy = \"x", "another taxonomy"),
        ("prompt_version = \"", "prompt_version = \"x", "another prompt"),
    ] {
        let other = Calibration::from_toml(&prior.to_toml().replace(from, to)).unwrap();
        let Err(Error::Configuration { .. }) = builder(&[&server]).calibration(other.clone()).build() else {
            panic!("accepted")
        };
        let error = builder(&[&server]).calibration(other).build().unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_prior_needs_probabilities_and_answers() {
    let silent = ScriptedTransport::new(|asked| Reply::labels(asked.items.iter().map(|_| "sport")));
    let error = builder(&[&silent]).build().unwrap().measure_prior().await.unwrap_err();
    assert_eq!(error, CalibrationError::NothingToMeasure);
    let asked = ScriptedTransport::new(third_is_sport);
    let second = EndpointConfig::new("http://second").model("n").transport(asked.clone());
    let error = builder(&[&asked]).endpoint(second).build().unwrap().measure_prior().await.unwrap_err();
    assert_eq!(error, CalibrationError::Mixed, "each model has habits of its own");
    let refusing = ScriptedTransport::new(|_| Reply::status(401, "no"));
    let error = builder(&[&refusing]).build().unwrap().measure_prior().await.unwrap_err();
    assert!(matches!(error, CalibrationError::NotAnswered { .. }), "{error}");
}

/// Unsure in packs, sure alone; wrong where it is unsure.
fn sure_alone(asked: &Asked) -> Reply {
    Reply::probabilities(asked.items.iter().map(|item| {
        let is_hard = item.ends_with('7');
        match (is_hard, asked.items.len()) {
            (false, _) => sure(item, 0.9),
            (true, 1) => sure(item, 0.95),
            (true, _) => sure(item, 0.45),
        }
    }))
}

#[tokio::test(start_paused = true)]
async fn unsure_items_are_asked_alone() {
    let server = ScriptedTransport::new(sure_alone);
    let escalation = Escalation::below(0.6).at_most(1.0);
    let report = builder(&[&server]).escalate(escalation).build().unwrap().categorize(items(300)).await;
    check_all_there(&report, 300);
    let again: Vec<_> =
        report.outcomes.iter().filter(|o| o.result.as_ref().unwrap().origin.first_answer.is_some()).collect();
    assert_eq!(again.len() as u64, report.stats.escalated);
    assert!(again.iter().all(|outcome| outcome.id.ends_with('7')));
    assert!(again.len() >= 20, "{}", again.len());
    assert_eq!(report.stats.escalations_changed, report.stats.escalated, "each was wrong at first");
    assert_eq!(again[0].result.as_ref().unwrap().origin.pack_size, 1);
}

#[tokio::test(start_paused = true)]
async fn escalation_keeps_within_its_share_of_requests() {
    let server = ScriptedTransport::new(|asked| Reply::probabilities(asked.items.iter().map(|item| sure(item, 0.55))));
    let escalation = Escalation::below(0.6).at_most(0.1);
    let report = builder(&[&server]).escalate(escalation).build().unwrap().categorize(items(600)).await;
    check_all_there(&report, 600);
    let alone = server.asked().iter().filter(|asked| asked.items.len() == 1).count();
    assert!((15..=20).contains(&alone), "{alone} beside 200");
    let stats = &report.stats;
    assert_eq!((stats.escalated as usize, stats.escalated + stats.escalations_refused), (alone, 600));
}

#[tokio::test(start_paused = true)]
async fn an_item_that_cannot_be_asked_again_keeps_its_answer() {
    let server = ScriptedTransport::new(|asked| match asked.items.len() {
        1 => Reply::status(400, "no single items here"),
        _ => sure_alone(asked),
    });
    let escalation = Escalation::below(0.6).at_most(1.0);
    let report = builder(&[&server]).escalate(escalation).build().unwrap().categorize(items(99)).await;
    assert_eq!(report.categorized(), 99);
    assert!(report.stats.escalated > 5);
    assert_eq!(report.stats.escalations_changed, 0);
}

#[tokio::test(start_paused = true)]
async fn votes_come_from_other_packs() {
    let server = ScriptedTransport::new(|asked| {
        Reply::probabilities(asked.items.iter().enumerate().map(|(position, item)| {
            // Unsure and wrong at the last position alone.
            let is_last = asked.items.len() == 3 && position == 2;
            sure(item, if is_last { 0.4 } else { 0.8 })
        }))
    });
    let escalation = Escalation::below(0.65).vote(3).at_most(2.0);
    let report = builder(&[&server]).escalate(escalation).build().unwrap().categorize(items(300)).await;
    assert_eq!(report.categorized(), 300);
    let wrong_at_first = report.stats.escalated;
    let right = report.outcomes.iter().enumerate().filter(|(number, outcome)| {
        outcome.result.as_ref().unwrap().category.as_str() == crate::support::label_of(*number)
    });
    let wrong = 300 - right.count() as u64;
    assert!(wrong_at_first >= 95 && wrong * 4 < wrong_at_first, "{wrong} of {wrong_at_first}");
}

#[tokio::test(start_paused = true)]
async fn a_stronger_model_has_the_last_word() {
    let weak = ScriptedTransport::new(|asked| Reply::probabilities(asked.items.iter().map(|item| sure(item, 0.45))));
    let strong = ScriptedTransport::new(|asked| Reply::probabilities(asked.items.iter().map(|item| sure(item, 0.99))));
    let endpoint = EndpointConfig::new("http://strong").model("large").transport(strong.clone());
    let escalation = Escalation::below(0.6).to(endpoint).at_most(10.0);
    let report = builder(&[&weak]).escalate(escalation).build().unwrap().categorize(items(300)).await;
    let first = report.stats.escalations_refused as usize;
    assert_eq!(report.stats.escalated as usize, 300 - first);
    let by_strong: Vec<_> =
        report.outcomes.iter().filter(|o| &*o.result.as_ref().unwrap().origin.model == "large").collect();
    assert_eq!(by_strong.len(), 300 - first);
    assert!(
        by_strong
            .iter()
            .all(|o| o.result.as_ref().unwrap().category.as_str() == crate::support::label_of(o.index as usize))
    );
    assert!(strong.asked().len() < 2 * (300 - first) / 3, "they share packs: {}", strong.asked().len());
}

#[tokio::test(start_paused = true)]
async fn a_lost_stronger_model_stops_nothing() {
    for reply in [Reply::status(401, "no"), Reply::status(500, "broken"), Reply::hang()] {
        let weak =
            ScriptedTransport::new(|asked| Reply::probabilities(asked.items.iter().map(|item| sure(item, 0.55))));
        let strong = ScriptedTransport::new(move |_| reply.clone());
        let endpoint = EndpointConfig::new("http://strong").model("large").transport(strong);
        let escalation = Escalation::below(0.6).to(endpoint).at_most(1.0);
        let report = builder(&[&weak]).escalate(escalation).build().unwrap().categorize(items(90)).await;
        assert!(report.error.is_none());
        check_all_there(&report, 90);
        assert_eq!(report.categorized(), 90);
    }
}

#[test]
fn an_escalation_that_cannot_be_is_refused() {
    let server = ScriptedTransport::new(|_| Reply::hang());
    for (escalation, problem) in [
        (Escalation::below(1.5), "below a confidence"),
        (Escalation::below(0.5).at_most(0.0), "share of requests"),
        (Escalation::below(0.5).vote(0), "votes"),
        (Escalation::below(0.5).to("nonsense"), "nonsense"),
    ] {
        let error = builder(&[&server]).escalate(escalation).build().unwrap_err();
        assert!(error.to_string().contains(problem), "{error}");
    }
    for alone in [Escalation::below(0.5), Escalation::below(0.5).vote(3)] {
        let error = builder(&[&server]).pack_size(1).escalate(alone).build().unwrap_err();
        assert!(error.to_string().contains("alone already"), "{error}");
    }
    let evened = |model: &str| {
        let stronger = EndpointConfig::new("http://9").transport(server.clone()).model(model);
        builder(&[&server]).even_positions(true).escalate(Escalation::below(0.5).to(stronger)).build()
    };
    assert!(evened("m").is_ok());
    assert!(evened("large").unwrap_err().to_string().contains("same model"));
    let error = builder(&[&server]).confidence(false).abstain_below(0.5).build().unwrap_err();
    assert!(error.to_string().contains("go by confidences"), "{error}");
}
