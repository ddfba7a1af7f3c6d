//! A fake of Vault, for what a real one cannot be brought to: it speaks HTTP/1.1 on loopback and answers what a test
//! tells it to, in order. It is strict: a request without `X-Vault-Request`, or to a path outside `/v1/`, is answered by
//! 599 and kept as a fault, so that no test can pass by talking to it wrongly.

use std::{
    collections::VecDeque,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// The fake.
pub(crate) struct FakeVault {
    /// Its address, without path.
    pub(crate) url: String,
    state: Arc<Mutex<State>>,
}

/// A request as it came.
#[derive(Clone)]
pub(crate) struct Seen {
    pub(crate) method: String,
    pub(crate) target: String,
    pub(crate) headers: Vec<(String, String)>,
    pub(crate) body: String,
    /// The number of its connection.
    pub(crate) connection: usize,
}

impl Seen {
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(each, _)| each == name).map(|(_, value)| value.as_str())
    }
}

/// What it does with one request.
#[derive(Clone)]
pub(crate) enum Reply {
    /// Reads the request and closes the connection.
    Close,
    /// Answers.
    Json(u16, String),
    /// Answers with further header lines.
    With(u16, Vec<(&'static str, String)>, String),
    /// Reads the request and never answers.
    Silent,
    /// Announces more than it sends, and closes.
    Truncated(String),
}

#[derive(Default)]
struct State {
    /// By path below `/v1/`; the last one of a path stays.
    scripts: Vec<(String, VecDeque<Reply>)>,
    seen: Vec<Seen>,
    faults: Vec<String>,
    connections: usize,
}

impl FakeVault {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let state = Arc::new(Mutex::new(State::default()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { return };
                let state = Arc::clone(&shared);
                let connection = {
                    let mut state = lock(&state);
                    state.connections += 1;
                    state.connections
                };
                std::thread::spawn(move || serve(stream, &state, connection));
            }
        });
        Self { url, state }
    }

    /// What it answers at a path below `/v1/` (also behind a proxy's prefix), in order; the last one again and again.
    pub(crate) fn on(&self, path: &str, replies: impl IntoIterator<Item = Reply>) {
        let mut state = lock(&self.state);
        state.scripts.retain(|(each, _)| each != path);
        state.scripts.push((path.to_owned(), replies.into_iter().collect()));
    }

    /// Every request to a path until now.
    pub(crate) fn seen(&self, path: &str) -> Vec<Seen> {
        let state = lock(&self.state);
        state.seen.iter().filter(|seen| below(&seen.target) == Some(path)).cloned().collect()
    }

    /// What was wrong with requests.
    pub(crate) fn faults(&self) -> Vec<String> {
        lock(&self.state).faults.clone()
    }
}

fn lock(state: &Mutex<State>) -> std::sync::MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The path below `/v1/`, without query.
fn below(target: &str) -> Option<&str> {
    let path = target.split('?').next()?;
    path.split_once("/v1/").map(|(_, below)| below)
}

fn serve(stream: TcpStream, state: &Mutex<State>, connection: usize) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Some(seen) = read(&mut reader, connection) {
        let reply = take(state, &seen);
        let answer = match reply {
            Reply::Close => return,
            Reply::Silent => {
                // Until the client goes away; a minute is longer than any test.
                std::thread::sleep(Duration::from_secs(60));
                return;
            }
            Reply::Truncated(body) => {
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len() + 100);
                writer.write_all(format!("{head}{body}").as_bytes()).ok();
                return;
            }
            Reply::Json(status, body) => (status, Vec::new(), body),
            Reply::With(status, headers, body) => (status, headers, body),
        };
        let (status, headers, body) = answer;
        let body = if seen.method == "HEAD" { String::new() } else { body };
        let mut head = format!("HTTP/1.1 {status} X\r\ncontent-length: {}\r\n", body.len());
        headers.iter().for_each(|(name, value)| head.push_str(&format!("{name}: {value}\r\n")));
        if writer.write_all(format!("{head}\r\n{body}").as_bytes()).is_err() {
            return;
        }
    }
}

fn take(state: &Mutex<State>, seen: &Seen) -> Reply {
    let mut state = lock(state);
    state.seen.push(seen.clone());
    let path = below(&seen.target).map(str::to_owned);
    let is_ours = path.is_some() && seen.header("x-vault-request") == Some("true");
    let script = state.scripts.iter_mut().find(|(each, _)| path.as_deref() == Some(each));
    match script {
        Some((_, replies)) if is_ours && replies.len() > 1 => replies.pop_front().unwrap(),
        Some((_, replies)) if is_ours && !replies.is_empty() => replies[0].clone(),
        _ => {
            state.faults.push(format!("{} {}", seen.method, seen.target));
            Reply::Json(599, "{}".to_owned())
        }
    }
}

fn read(reader: &mut BufReader<TcpStream>, connection: usize) -> Option<Seen> {
    let mut line = String::new();
    reader.read_line(&mut line).ok().filter(|bytes| *bytes > 0)?;
    let mut words = line.split_whitespace();
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let mut headers = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim_end().split_once(':') else { break };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some(Seen { method, target, headers, body: String::from_utf8_lossy(&body).into_owned(), connection })
}
