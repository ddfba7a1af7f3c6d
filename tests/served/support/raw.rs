//! Clients that say what no library would: bytes on a socket, from any loopback address, and HTTP/2 frame by frame.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream},
    time::{Duration, Instant},
};

use reqwest::header::{HeaderMap, HeaderName, HeaderValue};
use rustix::net::{AddressFamily, SocketFlags, SocketType, bind, connect, socket_with};

use super::{Answer, PATIENCE};

/// A connection, and what was read of it.
pub(crate) struct Wire {
    stream: TcpStream,
    read: Vec<u8>,
    /// Whether HEAD is asked, whose answer has a length and no body.
    is_head: bool,
}

impl Wire {
    pub(crate) fn open(address: SocketAddr) -> Self {
        Self::on(TcpStream::connect(address).unwrap())
    }

    /// From one of loopback's sixteen million addresses.
    pub(crate) fn open_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket =
            socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC, None).unwrap();
        bind(&socket, &SocketAddrV4::new(source, 0)).unwrap();
        connect(&socket, &address).unwrap();
        Self::on(TcpStream::from(socket))
    }

    fn on(stream: TcpStream) -> Self {
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        stream.set_write_timeout(Some(PATIENCE)).unwrap();
        Self { stream, read: Vec::new(), is_head: false }
    }

    /// Sends; says whether the peer still took it.
    pub(crate) fn send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.is_head = bytes.as_ref().starts_with(b"HEAD ");
        match self.stream.write_all(bytes.as_ref()) {
            Ok(()) => true,
            Err(fault) => {
                assert_ne!(fault.kind(), ErrorKind::WouldBlock, "the peer takes nothing and stays");
                false
            }
        }
    }

    /// How long a peer may take nothing.
    pub(crate) fn give_up_after(&self, bound: Duration) {
        self.stream.set_write_timeout(Some(bound)).unwrap();
    }

    /// Sends; says whether the peer took all of it.
    pub(crate) fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.write_all(bytes.as_ref()).is_ok()
    }

    /// Says that nothing more will come.
    pub(crate) fn finish(&self) {
        // An error means that the peer has ended already.
        self.stream.shutdown(std::net::Shutdown::Write).ok();
    }

    /// Reads some bytes; says whether there are more to come. Panics where the peer says nothing and stays.
    fn read_some(&mut self) -> bool {
        let mut bytes = [0; 16 * 1024];
        match self.stream.read(&mut bytes) {
            Ok(0) => false,
            Ok(read) => {
                self.read.extend_from_slice(&bytes[..read]);
                true
            }
            Err(fault) if fault.kind() == ErrorKind::WouldBlock => {
                panic!("the peer says nothing and stays; it said {:?}", String::from_utf8_lossy(&self.read))
            }
            Err(_) => false,
        }
    }

    /// Everything until the peer ends.
    pub(crate) fn rest(&mut self) -> Vec<u8> {
        while self.read_some() {}
        std::mem::take(&mut self.read)
    }

    /// Whether the peer has ended within that time; what it said meanwhile is kept.
    pub(crate) fn ends_within(&mut self, bound: Duration) -> bool {
        let start = Instant::now();
        let mut bytes = [0; 16 * 1024];
        while let Some(left) = bound.checked_sub(start.elapsed()).filter(|left| !left.is_zero()) {
            self.stream.set_read_timeout(Some(left)).unwrap();
            match self.stream.read(&mut bytes) {
                Ok(read @ 1..) => self.read.extend_from_slice(&bytes[..read]),
                Err(fault) if fault.kind() == ErrorKind::WouldBlock => {}
                Ok(0) | Err(_) => return true,
            }
        }
        false
    }

    /// The next answer of HTTP/1; nothing where the peer ended before it.
    pub(crate) fn answer(&mut self) -> Option<Answer> {
        let end = loop {
            let end = self.read.windows(4).position(|bytes| bytes == b"\r\n\r\n");
            if let Some(end) = end {
                break end + 4;
            }
            if !self.read_some() {
                assert!(self.read.is_empty(), "half a head: {:?}", String::from_utf8_lossy(&self.read));
                return None;
            }
        };
        let head = String::from_utf8(self.read.drain(..end).collect()).unwrap();
        let (status, fields) = head.split_once("\r\n").unwrap();
        let status = status.strip_prefix("HTTP/1.1 ").or(status.strip_prefix("HTTP/1.0 ")).unwrap();
        let status = status[..3].parse().unwrap();
        let headers: HeaderMap = fields
            .split_terminator("\r\n")
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap()))
            .collect();
        if self.is_head {
            return Some(Answer { status, headers, body: String::new() });
        }
        let length =
            headers.get("content-length").map_or(0, |length| length.to_str().unwrap().parse().unwrap());
        while self.read.len() < length {
            assert!(self.read_some(), "half an answer to {head}");
        }
        let body = String::from_utf8(self.read.drain(..length).collect()).unwrap();
        Some(Answer { status, headers, body })
    }
}

/// A request of HTTP/1.1 on a connection of its own; its answer, if there is one, and whatever came after it.
pub(crate) fn say(address: SocketAddr, request: impl AsRef<[u8]>) -> (Option<Answer>, Vec<u8>) {
    let mut wire = Wire::open(address);
    wire.send(request);
    let answer = wire.answer();
    wire.finish();
    (answer, wire.rest())
}

/// A frame of HTTP/2.
#[derive(Clone, Debug)]
pub(crate) struct Frame {
    pub(crate) kind: u8,
    pub(crate) flags: u8,
    pub(crate) stream: u32,
    pub(crate) payload: Vec<u8>,
}

pub(crate) const DATA: u8 = 0;
pub(crate) const HEADERS: u8 = 1;
pub(crate) const RST_STREAM: u8 = 3;
pub(crate) const SETTINGS: u8 = 4;
pub(crate) const PUSH_PROMISE: u8 = 5;
pub(crate) const PING: u8 = 6;
pub(crate) const GOAWAY: u8 = 7;
pub(crate) const WINDOW_UPDATE: u8 = 8;
pub(crate) const CONTINUATION: u8 = 9;
/// END_STREAM, and ACK.
pub(crate) const END: u8 = 1;
pub(crate) const END_HEADERS: u8 = 4;
/// RFC 9113 section 3.4.
pub(crate) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection of HTTP/2 by prior knowledge, after its preface.
pub(crate) struct Frames(pub(crate) Wire);

impl Frames {
    /// Opens one with these settings.
    pub(crate) fn open(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut wire = Wire::open(address);
        wire.send(PREFACE);
        let payload = settings.iter().flat_map(|(id, value)| {
            id.to_be_bytes().into_iter().chain(value.to_be_bytes()).collect::<Vec<u8>>()
        });
        let mut frames = Self(wire);
        frames.send(SETTINGS, 0, 0, &payload.collect::<Vec<u8>>());
        frames
    }

    /// Sends a frame; says whether the peer still took it.
    pub(crate) fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.0.send(frame(kind, flags, stream, payload))
    }

    /// Sends a request's head.
    pub(crate) fn ask(&mut self, stream: u32, flags: u8, fields: &[(&str, &str)]) -> bool {
        self.send(HEADERS, flags | END_HEADERS, stream, &block(fields))
    }

    /// The next frame; nothing where the peer ended.
    pub(crate) fn next(&mut self) -> Option<Frame> {
        let wire = &mut self.0;
        let header = loop {
            if let Some(header) = wire.read.first_chunk::<9>() {
                break *header;
            }
            if !wire.read_some() {
                return None;
            }
        };
        let [a, b, c, kind, flags, stream @ ..] = header;
        let length = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap();
        while wire.read.len() < 9 + length {
            if !wire.read_some() {
                return None;
            }
        }
        let payload = wire.read.drain(..9 + length).skip(9).collect();
        Some(Frame { kind, flags, stream: u32::from_be_bytes(stream), payload })
    }

    /// The body of the answer on a stream; nothing where it was reset or the connection ended. Other frames are passed
    /// over.
    pub(crate) fn body(&mut self, stream: u32) -> Option<String> {
        let mut body = Vec::new();
        loop {
            let frame = self.next()?;
            let is_ours = frame.stream == stream;
            match frame.kind {
                DATA if is_ours => {
                    body.extend_from_slice(&frame.payload);
                    if frame.flags & END != 0 {
                        return String::from_utf8(body).ok();
                    }
                }
                RST_STREAM if is_ours => return None,
                _ => {}
            }
        }
    }

    /// Reads to the end of the connection; the error codes of the GOAWAY and RST_STREAM frames on the way.
    pub(crate) fn end(&mut self) -> Vec<(u8, u32)> {
        let mut codes = Vec::new();
        while let Some(frame) = self.next() {
            let at = match frame.kind {
                GOAWAY => 4,
                RST_STREAM => 0,
                _ => continue,
            };
            let code = frame.payload[at..].first_chunk().copied().map(u32::from_be_bytes);
            codes.push((frame.kind, code.unwrap()));
        }
        codes
    }
}

/// A frame's bytes.
pub(crate) fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let [_, a, b, c] = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut bytes = vec![a, b, c, kind, flags];
    bytes.extend_from_slice(&stream.to_be_bytes());
    bytes.extend_from_slice(payload);
    bytes
}

/// A block of fields in the plainest HPACK: literals, neither indexed nor compressed (RFC 7541 section 6.2.2).
pub(crate) fn block(fields: &[(&str, &str)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        text(&mut block, name);
        text(&mut block, value);
    }
    block
}

/// A string of HPACK: its length with a prefix of seven bits, and its bytes (RFC 7541 section 5.2).
pub(crate) fn text(block: &mut Vec<u8>, text: &str) {
    let mut length = text.len();
    if length < 0x7f {
        block.push(u8::try_from(length).unwrap());
    } else {
        block.push(0x7f);
        length -= 0x7f;
        while length >= 0x80 {
            block.push(u8::try_from(length % 0x80).unwrap() | 0x80);
            length /= 0x80;
        }
        block.push(u8::try_from(length).unwrap());
    }
    block.extend_from_slice(text.as_bytes());
}
