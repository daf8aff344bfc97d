//! What a healthy simulated server answers.

use serde_json::{Value, json};

use super::super::{SimulatedReply, SimulatedServer, StructuredOutputs};
use super::{PREFIX, THREE, answer, chat, content, message};

#[tokio::test]
async fn items_get_their_categories_under_their_ids() {
    let engine = SimulatedServer::builder().label_whitespace(false).engine();
    let (status, body) = answer(&engine, &chat(&THREE)).await;
    assert_eq!(status, 200);
    assert_eq!(
        content(&body),
        r#"[{"id":1,"category":"sport"},{"id":2,"category":"business"},{"id":3,"category":"sci-tech"}]"#
    );
    assert_eq!(body["choices"][0]["finish_reason"], "stop");
    let counts = engine.counts();
    assert_eq!((counts.items, counts.completion_requests(), counts.max_in_flight, counts.in_flight), (3, 1, 1, 0));
    assert_eq!(counts.output_tokens, body["usage"]["completion_tokens"].as_u64().unwrap());
}

#[tokio::test]
async fn the_tokens_spell_the_content_and_tell_the_alternatives_at_the_label() {
    let engine = SimulatedServer::builder().engine();
    let (_, body) = answer(&engine, &chat(&THREE)).await;
    assert!(content(&body).starts_with(r#"[{"id": 1, "category": "sport"}, {"id": 2,"#));
    let tokens = body["choices"][0]["logprobs"]["content"].as_array().unwrap();
    let text: String = tokens.iter().map(|token| token["token"].as_str().unwrap()).collect();
    assert_eq!(text, content(&body));
    assert_eq!(tokens.len() as u64, body["usage"]["completion_tokens"].as_u64().unwrap());
    let label = tokens.iter().find(|token| token["token"] == "sport").unwrap();
    let mut tops: Vec<_> =
        label["top_logprobs"].as_array().unwrap().iter().map(|top| top["token"].as_str().unwrap()).collect();
    assert_eq!(tops[0], "sport");
    tops.sort_unstable();
    assert_eq!(tops, ["The", "business", "other", "sci", "sport"]);
}

#[tokio::test]
async fn logprobs_come_only_when_asked_and_honoured() {
    let mut body = chat(&THREE);
    let engine = SimulatedServer::builder().logprobs(false).engine();
    assert_eq!(answer(&engine, &body).await.1["choices"][0]["logprobs"], Value::Null);
    body.as_object_mut().unwrap().retain(|key, _| !key.contains("logprobs"));
    let engine = SimulatedServer::builder().engine();
    assert_eq!(answer(&engine, &body).await.1["choices"][0]["logprobs"], Value::Null);
}

#[tokio::test]
async fn the_prefix_is_cached_in_whole_blocks() {
    let engine = SimulatedServer::builder().engine();
    let cached = |body: &Value| body["usage"]["prompt_tokens_details"]["cached_tokens"].as_u64().unwrap();
    let (_, first) = answer(&engine, &chat(&THREE)).await;
    let (_, second) = answer(&engine, &chat(&["Another item altogether"])).await;
    assert_eq!(cached(&first), 0);
    assert!(cached(&second) > 60 && cached(&second).is_multiple_of(16), "{second}");
    assert!(cached(&second) < second["usage"]["prompt_tokens"].as_u64().unwrap());
    engine.go_down();
    engine.come_back();
    assert_eq!(cached(&answer(&engine, &chat(&THREE)).await.1), 0);
    assert!(engine.counts().cached_share() > 0.0);
}

#[tokio::test]
async fn the_completions_endpoint_reads_the_items_after_the_example() {
    let engine = SimulatedServer::builder().label_whitespace(false).engine();
    let prompt = format!("{PREFIX}{}", message(&THREE[1..]));
    let body = json!({"model": "simulated", "prompt": prompt, "max_tokens": 100, "logprobs": 5}).to_string();
    let SimulatedReply::Response(response) = engine.handle("/v1/completions", None, body.as_bytes()).await else {
        panic!()
    };
    let body: Value = serde_json::from_slice(&response.body).unwrap();
    assert_eq!(body["choices"][0]["text"], r#"[{"id":1,"category":"business"},{"id":2,"category":"sci-tech"}]"#);
    let logprobs = &body["choices"][0]["logprobs"];
    assert_eq!(logprobs["tokens"].as_array().unwrap().len(), logprobs["top_logprobs"].as_array().unwrap().len());
}

#[tokio::test]
async fn the_form_of_the_answer_follows_the_response_format() {
    let engine = SimulatedServer::builder().label_whitespace(false).engine();
    let mut body = chat(&THREE[..1]);
    let array = body["response_format"]["json_schema"]["schema"].take();
    let format = |schema: Value| json!({"type": "json_schema", "json_schema": {"name": "c", "schema": schema}});
    for (format, expected) in [
        (Value::Null, r#"[{"id":1,"category":"sport"}]"#),
        (json!({"type": "json_object"}), r#"{"items":[{"id":1,"category":"sport"}]}"#),
        (format(array.clone()), r#"[{"id":1,"category":"sport"}]"#),
        (
            format(json!({"type": "object", "properties": {"items": array}})),
            r#"{"items":[{"id":1,"category":"sport"}]}"#,
        ),
    ] {
        body["response_format"] = format;
        assert_eq!(content(&answer(&engine, &body).await.1), expected);
    }
    let message =
        "<item id=\"1\">\nleague\n</item>\nCategories of item 1, as a JSON object {\"items\":[…]} around the array:";
    body["response_format"] = Value::Null;
    body["messages"][1]["content"] = message.into();
    assert!(content(&answer(&engine, &body).await.1).starts_with("{\"items\""));
}

#[tokio::test]
async fn the_schema_decides_which_labels_there_are() {
    let engine = SimulatedServer::builder().label_whitespace(false).engine();
    let mut body = chat(&THREE[..1]);
    let labels = "/response_format/json_schema/schema/items/properties/category/enum";
    *body.pointer_mut(labels).unwrap() = json!(["business", "other"]);
    assert!(!content(&answer(&engine, &body).await.1).contains("sport"));
    body["messages"][0]["content"] = "No listing here.".into();
    *body.pointer_mut(labels).unwrap() = json!(["red", "blue"]);
    let (_, answer) = answer(&engine, &body).await;
    assert!(content(&answer).contains("red") || content(&answer).contains("blue"), "{answer}");
}

#[tokio::test]
async fn dialects_are_refused_as_set() {
    let mut array = chat(&THREE);
    let mut object = array.clone();
    let schema = object["response_format"]["json_schema"]["schema"].take();
    object["response_format"]["json_schema"]["schema"] = json!({"type": "object", "properties": {"items": schema}});
    let mut json_object = array.clone();
    json_object["response_format"] = json!({"type": "json_object"});
    let mut text = array.clone();
    text["response_format"] = Value::Null;
    for (kind, expected) in [
        (StructuredOutputs::JsonSchema, [200, 200, 200, 200]),
        (StructuredOutputs::JsonSchemaObjectRootOnly, [400, 200, 200, 200]),
        (StructuredOutputs::JsonObjectOnly, [400, 400, 200, 200]),
        (StructuredOutputs::None, [400, 400, 400, 200]),
    ] {
        let engine = SimulatedServer::builder().structured_outputs(kind).engine();
        for (body, expected) in [&array, &object, &json_object, &text].into_iter().zip(expected) {
            let (status, body) = answer(&engine, body).await;
            assert_eq!(status, expected, "{kind:?} {body}");
            assert!(status == 200 || body["error"]["param"] == "response_format");
        }
    }
    array["response_format"] = json!({"type": "grammar"});
    assert_eq!(answer(&SimulatedServer::builder().engine(), &array).await.0, 400);
}

#[tokio::test]
async fn what_vllm_refuses_is_refused_in_its_words() {
    let engine = SimulatedServer::builder().max_model_len(300).engine();
    let mut body = chat(&THREE);
    let (status, error) = answer(&engine, &body).await;
    let message = error["error"]["message"].as_str().unwrap();
    assert_eq!((status, &error["error"]["code"]), (400, &json!(400)));
    assert!(
        message.starts_with("This model's maximum context length is 300 tokens. However, you requested "),
        "{message}"
    );
    assert!(message.contains("200 in the completion"));
    body["max_tokens"] = Value::Null;
    assert_eq!(answer(&engine, &body).await.0, 200, "the rest of the context is the limit");
    body["model"] = "x".into();
    let (status, error) = answer(&engine, &body).await;
    assert_eq!((status, &error["error"]["message"]), (404, &json!("The model `x` does not exist.")));
    let reply = engine.handle("/v1/chat/completions", None, b"not json").await;
    assert!(matches!(reply, SimulatedReply::Response(response) if response.status == 400));
}

#[tokio::test]
async fn max_tokens_cuts_and_output_tokens_pads() {
    let engine = SimulatedServer::builder().output_tokens(Some(150)).engine();
    let mut body = chat(&THREE);
    let (_, padded) = answer(&engine, &body).await;
    assert_eq!(
        (&padded["usage"]["completion_tokens"], &padded["choices"][0]["finish_reason"]),
        (&json!(150), &json!("stop"))
    );
    assert!(serde_json::from_str::<Value>(content(&padded)).is_ok());
    body["max_tokens"] = 20.into();
    let (_, cut) = answer(&engine, &body).await;
    assert_eq!(
        (&cut["usage"]["completion_tokens"], &cut["choices"][0]["finish_reason"]),
        (&json!(20), &json!("length"))
    );
}

#[tokio::test]
async fn a_prompt_without_items_gets_prose() {
    let engine = SimulatedServer::builder().engine();
    let mut body = chat(&[]);
    assert!(content(&answer(&engine, &body).await.1).starts_with("There is nothing"));
    body["messages"] = json!([]);
    assert_eq!(answer(&engine, &body).await.0, 200);
}

#[tokio::test]
async fn noise_depends_on_the_item_alone() {
    let engine = SimulatedServer::builder().noise(0.5).seed(3).engine();
    let texts: Vec<_> = (0..40).map(|n| format!("The league match {n}")).collect();
    let labels = |body: &Value| -> Vec<Value> { serde_json::from_str(content(body)).unwrap() };
    let mut body = chat(&texts.iter().map(String::as_str).collect::<Vec<_>>());
    body["max_tokens"] = 2_000.into();
    let all = labels(&answer(&engine, &body).await.1);
    let wrong = all.iter().filter(|object| object["category"] != "sport").count();
    assert!((10..30).contains(&wrong), "{wrong}");
    let alone = labels(&answer(&engine, &chat(&[&texts[7]])).await.1);
    assert_eq!(alone[0]["category"], all[7]["category"]);
}
