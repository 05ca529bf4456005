//! A fake of Microsoft Graph and of Entra's token endpoint, written from Microsoft's documentation: as much as asking for
//! groups needs. It records every question.
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};

use crate::http1::{Connection, Head, Listener, answer, lock, read_sized};

/// The token that this Graph gives out and wants back.
const TOKEN: &str = "graph-token";

#[derive(Default)]
struct State {
    groups: Value,
    status: Option<u16>,
    token_status: Option<u16>,
    asked: Vec<(String, String)>,
}

/// A running fake, `http://127.0.0.1:<port>`, both Graph and login.
pub struct Graph {
    state: Arc<Mutex<State>>,
    listener: Listener,
}

impl Graph {
    /// Everybody is in no group.
    pub fn start() -> Graph {
        let state = Arc::new(Mutex::new(State { groups: json!({ "value": [] }), ..State::default() }));
        let shared = Arc::clone(&state);
        let listener = Listener::start(None, move |connection| serve(connection, &shared));
        Graph { state, listener }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.listener.address())
    }

    /// What the question for groups is answered with.
    pub fn answer(&self, document: Value) {
        lock(&self.state).groups = document;
    }

    /// The question for groups gets this status instead.
    pub fn fail(&self, status: Option<u16>) {
        lock(&self.state).status = status;
    }

    /// The token endpoint answers with this status instead.
    pub fn fail_tokens(&self, status: Option<u16>) {
        lock(&self.state).token_status = status;
    }

    /// Path and body of every question so far.
    pub fn asked(&self) -> Vec<(String, String)> {
        lock(&self.state).asked.clone()
    }

    /// Nobody listens any more.
    pub fn down(&self) {
        self.listener.down();
    }
}

fn serve(mut connection: Connection, state: &Mutex<State>) {
    while let Some(head) = Head::read(&mut connection.stream) {
        let mut body = Vec::new();
        let length = head.content_length().unwrap_or(0);
        if read_sized(&mut connection.stream, length, |piece| body.extend_from_slice(piece)).is_err() {
            return;
        }
        let target = head.first_line.split(' ').nth(1).unwrap_or_default().to_owned();
        let (status, document) = {
            let mut state = lock(state);
            state.asked.push((target.clone(), String::from_utf8_lossy(&body).into_owned()));
            if target.ends_with("/oauth2/v2.0/token") {
                let token = json!({ "token_type": "Bearer", "expires_in": 3599, "access_token": TOKEN });
                (state.token_status.unwrap_or(200), token)
            } else if head.field("authorization") == Some(&format!("Bearer {TOKEN}")) {
                (state.status.unwrap_or(200), state.groups.clone())
            } else {
                (401, json!({ "error": { "code": "InvalidAuthenticationToken" } }))
            }
        };
        let fields = [("content-type", "application/json")];
        if answer(connection.stream.get_mut(), status, &fields, document.to_string().as_bytes()).is_err() {
            return;
        }
    }
}
