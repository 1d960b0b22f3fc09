//! Providers that are no language models: GitHub's API, Telegram, Slack, and any other host.

use bytes::Bytes;
use http::Response;
use serde_json::json;

use super::answer::{Body, plain, to_json};
use super::record::Seen;

pub fn github(seen: &Seen, known: bool) -> Response<Body> {
    if !known {
        return to_json(401, &json!({"message": "Bad credentials", "status": "401"}));
    }
    match seen.path() {
        "/user" => to_json(200, &json!({"login": "octocat", "id": 1})),
        path if path.starts_with("/repos/") => to_json(200, &json!({"full_name": &path["/repos/".len()..]})),
        _ => to_json(404, &json!({"message": "Not Found", "status": "404"})),
    }
}

pub fn telegram(seen: &Seen, known: bool) -> Response<Body> {
    if !known {
        return to_json(401, &json!({"ok": false, "error_code": 401, "description": "Unauthorized"}));
    }
    match seen.path().rsplit('/').next() {
        Some("getMe") => {
            to_json(200, &json!({"ok": true, "result": {"id": 1, "is_bot": true, "username": "test_bot"}}))
        }
        Some("sendMessage") => to_json(200, &json!({"ok": true, "result": {"message_id": 1}})),
        _ => to_json(404, &json!({"ok": false, "error_code": 404, "description": "Not Found"})),
    }
}

pub fn slack(_seen: &Seen, known: bool) -> Response<Body> {
    if known {
        to_json(200, &json!({"ok": true, "team": "acme", "user": "bot"}))
    } else {
        to_json(200, &json!({"ok": false, "error": "invalid_auth"}))
    }
}

pub fn generic(seen: &Seen, known: bool) -> Response<Body> {
    let with = if known { "known" } else { "none" };
    plain(200, Bytes::from(format!("{} {} credential={with}\n", seen.method, seen.path())))
}
