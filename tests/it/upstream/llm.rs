//! Language-model providers: answers in the shapes that their SDKs parse, whole and streamed.

use bytes::Bytes;
use http::Response;
use serde_json::{Value, json};

use super::answer::{Body, event_stream, to_json};
use super::record::Seen;

/// The words of every model answer, in the pieces that a stream has.
pub const WORDS: [&str; 4] = ["All", " keys", " stay", " home."];

/// The pieces of an answer; the last may say the credential back.
pub fn text(echo: Option<&str>) -> Vec<String> {
    let words = WORDS.iter().map(|word| (*word).to_owned());
    words.chain(echo.map(|credential| format!(" You sent {credential}."))).collect()
}

pub fn anthropic(seen: &Seen, known: bool, text: &[String]) -> Response<Body> {
    if !known {
        let error = json!({"type": "authentication_error", "message": "invalid x-api-key"});
        return to_json(401, &json!({"type": "error", "error": error, "request_id": "req_test"}));
    }
    let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    let model = body["model"].as_str().unwrap_or("claude-test").to_owned();
    match (seen.method.as_str(), seen.path()) {
        ("GET", "/v1/models") => {
            let model = json!({"type": "model", "id": "claude-test", "display_name": "Test",
                "created_at": "2026-01-01T00:00:00Z"});
            let page = json!({"data": [model], "has_more": false, "first_id": "claude-test", "last_id": "claude-test"});
            to_json(200, &page)
        }
        ("POST", "/v1/messages") if body["stream"] == json!(true) => event_stream(anthropic_events(&model, text), None),
        ("POST", "/v1/messages") => to_json(200, &anthropic_message(&model, &text.concat())),
        ("POST", "/v1/messages/count_tokens") => to_json(200, &json!({"input_tokens": 7})),
        _ => {
            let error = json!({"type": "not_found_error", "message": "Not found"});
            to_json(404, &json!({"type": "error", "error": error, "request_id": "req_test"}))
        }
    }
}

fn anthropic_message(model: &str, text: &str) -> Value {
    let content = if text.is_empty() { json!([]) } else { json!([{"type": "text", "text": text}]) };
    let stop = if text.is_empty() { Value::Null } else { json!("end_turn") };
    json!({"id": "msg_test", "type": "message", "role": "assistant", "model": model, "content": content,
        "stop_reason": stop, "stop_sequence": null, "usage": {"input_tokens": 7, "output_tokens": 4,
        "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0}})
}

fn anthropic_events(model: &str, text: &[String]) -> Vec<Bytes> {
    let mut events = vec![
        json!({"type": "message_start", "message": anthropic_message(model, "")}),
        json!({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}),
        json!({"type": "ping"}),
    ];
    for word in text {
        let delta = json!({"type": "text_delta", "text": word});
        events.push(json!({"type": "content_block_delta", "index": 0, "delta": delta}));
    }
    events.push(json!({"type": "content_block_stop", "index": 0}));
    let delta = json!({"stop_reason": "end_turn", "stop_sequence": null});
    events.push(json!({"type": "message_delta", "delta": delta, "usage": {"output_tokens": 4}}));
    events.push(json!({"type": "message_stop"}));
    let named = events.iter().map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()));
    named.map(Bytes::from).collect()
}

/// OpenAI and OpenRouter, whose shapes are the same.
pub fn openai(seen: &Seen, known: bool, text: &[String]) -> Response<Body> {
    if !known {
        let error = json!({"message": "Incorrect API key provided.", "type": "invalid_request_error",
            "param": null, "code": "invalid_api_key"});
        return to_json(401, &json!({"error": error}));
    }
    let body: Value = serde_json::from_slice(&seen.body).unwrap_or_default();
    let model = body["model"].as_str().unwrap_or("gpt-test").to_owned();
    let path = seen.path().strip_prefix("/api").unwrap_or(seen.path());
    match (seen.method.as_str(), path) {
        ("GET", "/v1/models") => {
            let model = json!({"id": "gpt-test", "object": "model", "created": 1, "owned_by": "test"});
            to_json(200, &json!({"object": "list", "data": [model]}))
        }
        ("POST", "/v1/chat/completions") if body["stream"] == json!(true) => {
            event_stream(openai_chunks(&model, text), None)
        }
        ("POST", "/v1/responses") => event_stream(openai_events(&model, text), None),
        ("POST", "/v1/chat/completions") => {
            let message = json!({"role": "assistant", "content": text.concat()});
            let choice = json!({"index": 0, "message": message, "finish_reason": "stop"});
            let usage = json!({"prompt_tokens": 7, "completion_tokens": 4, "total_tokens": 11});
            let answer = json!({"id": "chatcmpl-test", "object": "chat.completion", "created": 1, "model": model,
                "choices": [choice], "usage": usage});
            to_json(200, &answer)
        }
        _ => to_json(404, &json!({"error": {"message": "Not found", "type": "invalid_request_error", "code": null}})),
    }
}

fn openai_chunks(model: &str, text: &[String]) -> Vec<Bytes> {
    let chunk = |delta: Value, finish: Value| {
        let choice = json!({"index": 0, "delta": delta, "finish_reason": finish});
        let chunk = json!({"id": "chatcmpl-test", "object": "chat.completion.chunk", "created": 1, "model": model,
            "choices": [choice]});
        Bytes::from(format!("data: {chunk}\n\n"))
    };
    let mut pieces = vec![chunk(json!({"role": "assistant", "content": ""}), Value::Null)];
    pieces.extend(text.iter().map(|word| chunk(json!({"content": word}), Value::Null)));
    pieces.push(chunk(json!({}), json!("stop")));
    pieces.push(Bytes::from_static(b"data: [DONE]\n\n"));
    pieces
}

/// The Responses API, streamed.
fn openai_events(model: &str, text: &[String]) -> Vec<Bytes> {
    let response = |status: &str, output: Value| {
        json!({"id": "resp_test", "object": "response", "created_at": 1, "model": model, "status": status,
            "output": output, "usage": {"input_tokens": 7, "input_tokens_details": {"cached_tokens": 0},
            "output_tokens": 4, "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 11}})
    };
    let message = |status: &str, content: Value| json!({"id": "msg_test", "type": "message", "role": "assistant", "status": status, "content": content});
    let part = |text: &str| json!({"type": "output_text", "text": text, "annotations": []});
    let at = json!({"item_id": "msg_test", "output_index": 0, "content_index": 0});
    let with = |kind: &str, more: Value| {
        let mut event = at.clone();
        event["type"] = json!(kind);
        more.as_object().unwrap().iter().for_each(|(name, value)| event[name] = value.clone());
        event
    };
    let whole = text.concat();
    let done = message("completed", json!([part(&whole)]));
    let mut events = vec![
        json!({"type": "response.created", "response": response("in_progress", json!([]))}),
        json!({"type": "response.output_item.added", "output_index": 0, "item": message("in_progress", json!([]))}),
        with("response.content_part.added", json!({"part": part("")})),
    ];
    events.extend(text.iter().map(|word| with("response.output_text.delta", json!({"delta": word}))));
    events.push(with("response.output_text.done", json!({"text": whole})));
    events.push(with("response.content_part.done", json!({"part": part(&whole)})));
    events.push(json!({"type": "response.output_item.done", "output_index": 0, "item": done}));
    events.push(json!({"type": "response.completed", "response": response("completed", json!([done]))}));
    let number = |(at, mut event): (usize, Value)| {
        event["sequence_number"] = json!(at);
        Bytes::from(format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
    };
    events.into_iter().enumerate().map(number).collect()
}

pub fn gemini(seen: &Seen, known: bool, text: &[String]) -> Response<Body> {
    if !known {
        let details = json!([{"@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": "API_KEY_INVALID"}]);
        let error = json!({"code": 400, "message": "API key not valid. Please pass a valid API key.",
            "status": "INVALID_ARGUMENT", "details": details});
        return to_json(400, &json!({"error": error}));
    }
    match (seen.method.as_str(), seen.path()) {
        ("GET", "/v1beta/models") => to_json(200, &json!({"models": [{"name": "models/gemini-test"}]})),
        ("POST", path) if path.ends_with(":generateContent") => {
            let content = json!({"role": "model", "parts": [{"text": text.concat()}]});
            to_json(200, &json!({"candidates": [{"content": content, "finishReason": "STOP", "index": 0}]}))
        }
        _ => to_json(404, &json!({"error": {"code": 404, "message": "Not found", "status": "NOT_FOUND"}})),
    }
}
