//! Every fault as a client sees it.

use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use super::super::{Fault, Faults, Overload, Pace, Poison, SimulatedEngine, SimulatedReply, SimulatedServer};
use super::{THREE, answer, ask, chat, content, respond};

fn engine_with(faults: Faults) -> SimulatedEngine {
    SimulatedServer::builder().faults(faults).label_whitespace(false).engine()
}

fn always(fault: Fault) -> SimulatedEngine {
    engine_with(Faults::none().with(fault, 1.0))
}

#[tokio::test(start_paused = true)]
async fn every_fault_shows() {
    let (_, healthy) = answer(&engine_with(Faults::none()), &chat(&THREE)).await;
    for fault in Fault::ALL.iter().copied() {
        let engine = always(fault);
        let reply = tokio::time::timeout(Duration::from_mins(1), ask(&engine, &chat(&THREE))).await;
        let is_healthy = match &reply {
            Ok(SimulatedReply::Response(response)) => {
                let body = serde_json::from_slice::<Value>(&response.body).unwrap_or_default();
                response.pace == Pace::Whole && response.body.len() < 1 << 20 && body["choices"] == healthy["choices"]
            }
            _ => false,
        };
        assert!(!is_healthy, "{fault:?}");
        assert_eq!(engine.counts().fault(fault), 1, "{fault:?}");
        assert_eq!(reply.is_err(), fault == Fault::Hang, "{fault:?}");
    }
}

#[tokio::test]
async fn statuses_and_their_bodies() {
    for (fault, status, part) in [
        (Fault::TooManyRequestsHtml, 429, "<html>"),
        (Fault::TooManyRequestsSeconds, 429, "\"code\":429"),
        (Fault::TooManyRequestsDate, 429, "\"code\":429"),
        (Fault::InternalError, 500, "\"code\":500"),
        (Fault::UnavailableEmpty, 503, ""),
        (Fault::Overloaded529, 529, "overloaded_error"),
        (Fault::BadRequest, 400, "\"code\":400"),
        (Fault::ContextLength, 400, "maximum context length is 4096 tokens"),
        (Fault::ResponseFormatRefused, 400, "\"param\":\"response_format\""),
        (Fault::LogprobsRefused, 400, "\"param\":\"logprobs\""),
        (Fault::Unauthorized, 401, "\"code\":401"),
        (Fault::Forbidden, 403, "\"code\":403"),
        (Fault::ModelMissing, 404, "The model `simulated` does not exist."),
    ] {
        let response = respond(&always(fault), &chat(&THREE)).await;
        let body = String::from_utf8(response.body.to_vec()).unwrap();
        assert_eq!(response.status, status, "{fault:?}");
        assert!(body.contains(part) && (!part.is_empty() || body.is_empty()), "{fault:?}: {body}");
    }
}

#[tokio::test]
async fn retry_after_comes_in_seconds_and_as_a_date() {
    let header = async |fault| {
        let faults = Faults::none().with(fault, 1.0).retry_after(Duration::from_millis(6_500));
        let headers = respond(&engine_with(faults), &chat(&THREE)).await.headers;
        headers.into_iter().find(|(name, _)| name == "retry-after").unwrap().1
    };
    assert_eq!(header(Fault::TooManyRequestsSeconds).await, "7");
    let date = httpdate::parse_http_date(&header(Fault::TooManyRequestsDate).await).unwrap();
    let wait = date.duration_since(SystemTime::now()).unwrap();
    assert!((6..=8).contains(&wait.as_secs()), "{wait:?}");
}

#[tokio::test]
async fn a_dialect_is_not_refused_to_who_does_not_use_it() {
    let mut body = chat(&THREE);
    body.as_object_mut().unwrap().retain(|key, _| !key.contains("logprobs") && key != "response_format");
    for fault in [Fault::ResponseFormatRefused, Fault::LogprobsRefused] {
        let engine = always(fault);
        assert_eq!(answer(&engine, &body).await.0, 200);
        assert_eq!(engine.counts().fault(fault), 0);
    }
}

#[tokio::test]
async fn answers_end_and_are_empty_in_their_ways() {
    let choice = async |fault| answer(&always(fault), &chat(&THREE)).await.1["choices"][0].clone();
    let cut = choice(Fault::CutAnswer).await;
    assert_eq!(cut["finish_reason"], "length");
    assert!(serde_json::from_str::<Value>(cut["message"]["content"].as_str().unwrap()).is_err());
    assert_eq!(choice(Fault::Abort).await["finish_reason"], "abort");
    assert_eq!(choice(Fault::EmptyContent).await["message"]["content"], "");
    assert_eq!(choice(Fault::NullContent).await["message"]["content"], Value::Null);
    assert_eq!(choice(Fault::ContentFilter).await["finish_reason"], "content_filter");
    assert!(choice(Fault::Refusal).await["message"]["refusal"].as_str().unwrap().contains("can't help"));
    let looped = answer(&always(Fault::WhitespaceLoop), &chat(&THREE)).await.1;
    assert_eq!(
        (&looped["usage"]["completion_tokens"], &looped["choices"][0]["finish_reason"]),
        (&json!(200), &json!("length"))
    );
    assert!(content(&looped).ends_with("\n  ") || content(&looped).ends_with("  \n"));
}

#[tokio::test]
async fn bodies_break_in_their_ways() {
    let nan = respond(&always(Fault::NanLogprobs), &chat(&THREE)).await.body;
    assert!(String::from_utf8_lossy(&nan).contains("\"logprob\":NaN"));
    let bad = respond(&always(Fault::BadUtf8), &chat(&THREE)).await.body;
    assert!(std::str::from_utf8(&bad).is_err());
    assert!(respond(&always(Fault::HugeBody), &chat(&THREE)).await.body.len() > 8 << 20);
    assert_eq!(respond(&always(Fault::EndlessBody), &chat(&THREE)).await.pace, Pace::Endless);
    assert!(matches!(respond(&always(Fault::SlowDrip), &chat(&THREE)).await.pace, Pace::Drip { .. }));
    let reply = ask(&always(Fault::CloseEarly), &chat(&THREE)).await;
    assert!(matches!(reply, SimulatedReply::CloseEarly { response, after_bytes } if after_bytes < response.body.len()));
    assert_eq!(ask(&always(Fault::Reset), &chat(&THREE)).await, SimulatedReply::Reset);
}

#[tokio::test]
async fn a_poison_item_fails_any_request_that_holds_it() {
    for (poison, status) in [
        (Poison::Status400, Some(400)),
        (Poison::Status500, Some(500)),
        (Poison::ContentFilter, Some(200)),
        (Poison::Refusal, Some(200)),
        (Poison::CloseConnection, None),
    ] {
        let engine = engine_with(Faults::none().poison("xyzzy", poison));
        assert_eq!(answer(&engine, &chat(&THREE)).await.0, 200);
        for _ in 0..3 {
            let reply = ask(&engine, &chat(&[THREE[0], "an xyzzy item"])).await;
            let found = match &reply {
                SimulatedReply::Response(response) => Some(response.status),
                _ => None,
            };
            assert_eq!(found, status, "{poison:?}");
        }
        assert_eq!(engine.counts().poisoned, 3);
    }
    let engine = engine_with(Faults::none().poison("xyzzy", Poison::ContentFilter));
    let (_, body) = answer(&engine, &chat(&["an xyzzy item"])).await;
    assert_eq!(body["choices"][0]["finish_reason"], "content_filter");
    assert_eq!(content(&body), "");
}

#[tokio::test(start_paused = true)]
async fn too_many_in_flight_are_turned_away() {
    for (overload, status) in [(Overload::TooManyRequests, 429), (Overload::Unavailable, 503)] {
        let engine = SimulatedServer::builder()
            .latency(super::super::Latency::reference())
            .faults(Faults::none().overload_above(3, overload))
            .engine();
        let body = chat(&THREE);
        let statuses = futures_util::future::join_all((0..5).map(|_| answer(&engine, &body))).await;
        let statuses: Vec<_> = statuses.into_iter().map(|(status, _)| status).collect();
        assert_eq!(statuses, [200, 200, 200, status, status]);
        assert_eq!(answer(&engine, &body).await.0, 200);
    }
}

#[tokio::test(start_paused = true)]
async fn a_server_that_loads_refuses_and_one_that_dies_comes_back() {
    let engine = engine_with(Faults::none().refuse_first(1).die_after(2, Some(Duration::from_secs(10))));
    let body = chat(&THREE);
    assert_eq!(answer(&engine, &body).await.0, 503);
    assert_eq!(answer(&engine, &body).await.0, 200);
    assert_eq!(ask(&engine, &body).await, SimulatedReply::Reset);
    assert_eq!(ask(&engine, &body).await, SimulatedReply::Refused);
    tokio::time::sleep(Duration::from_secs(11)).await;
    assert_eq!(answer(&engine, &body).await.0, 200);
}

#[tokio::test]
async fn usage_may_be_missing_in_whole_or_in_part() {
    let usage = async |faults| answer(&engine_with(faults), &chat(&THREE)).await.1["usage"].clone();
    assert_eq!(usage(Faults::none().without_usage()).await, Value::Null);
    let part = usage(Faults::none().without_cached_tokens()).await;
    assert!(part["prompt_tokens"].is_u64() && part["prompt_tokens_details"].is_null());
}

#[tokio::test(start_paused = true)]
async fn concurrency_does_not_change_what_happens() {
    let bodies: Vec<_> = (0..120).map(|n| chat(&[&format!("league match {n}"), THREE[1], THREE[2]])).collect();
    let faults = Faults::mix(0.5).with(Fault::Hang, 0.0);
    let (one, other) = (engine_with(faults.clone()), engine_with(faults));
    let strip = |reply: SimulatedReply| match reply {
        // Headers hold the time and the number of the answer.
        SimulatedReply::Response(response) => {
            let body: Value = serde_json::from_slice(&response.body).unwrap_or_default();
            format!("{} {} {:?}", response.status, body["choices"], response.pace)
        }
        SimulatedReply::CloseEarly { .. } => "close early".to_owned(),
        other => format!("{other:?}"),
    };
    let mut in_order = Vec::new();
    for body in &bodies {
        in_order.push(strip(ask(&one, body).await));
    }
    let mut reversed = Vec::new();
    for body in bodies.iter().rev() {
        reversed.push(strip(ask(&other, body).await));
    }
    reversed.reverse();
    assert_eq!(in_order, reversed);
    assert_eq!(one.counts().faults, other.counts().faults);
    assert!(one.counts().faults.len() > 10);
}
