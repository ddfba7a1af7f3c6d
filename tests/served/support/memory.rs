//! What stands in a process's memory, read as root reads it, through `/proc/PID/mem`. Without root it fails.

use std::{
    collections::HashSet,
    fs,
    io::{Read as _, Seek as _, SeekFrom},
};

use base64::{
    Engine as _,
    engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD},
};

/// Long enough that chance does not find one, short enough that an allocator's list pointers do not hide it.
const WINDOW: usize = 12;

/// Pieces of texts that are looked for.
#[derive(Clone)]
pub(crate) struct Needles {
    windows: HashSet<[u8; WINDOW]>,
    /// Whether a window may begin with bytes of that [`mark`].
    begins: Vec<bool>,
}

impl Needles {
    /// Pieces of these bytes, and of the forms that they take on their way elsewhere: base64 at each of its three
    /// places and in both alphabets, hex in both cases, and URL.
    pub(crate) fn of(bytes: &[u8]) -> Self {
        let by_byte = |form: fn(&u8) -> String| bytes.iter().map(form).collect::<String>().into_bytes();
        let mut forms = vec![bytes.to_vec()];
        for at in 0..3.min(bytes.len()) {
            forms.push(STANDARD.encode(&bytes[at..]).into_bytes());
            forms.push(URL_SAFE_NO_PAD.encode(&bytes[at..]).into_bytes());
        }
        forms.push(by_byte(|byte| format!("{byte:02x}")));
        forms.push(by_byte(|byte| format!("{byte:02X}")));
        forms.push(by_byte(|byte| format!("%{byte:02X}")));
        Self::over(forms.iter().flat_map(|form| form.chunks_exact(WINDOW)))
    }

    /// Those of a secret's text.
    pub(crate) fn of_secret(secret: &str) -> Self {
        Self::of(secret.as_bytes())
    }

    /// Those of what no other token has: its id, where the payload holds it, and its signature, also as the bytes that
    /// it stands for. Most else is alike in all tokens of a job, of which others may be on their way.
    pub(crate) fn of_token(token: &str) -> Self {
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let (_, payload) = signed.split_once('.').unwrap();
        let claims = URL_SAFE_NO_PAD.decode(payload).unwrap();
        let id = claims.windows(7).position(|bytes| bytes == b"\"jti\":\"").expect("a token with an id") + 7;
        // Four letters stand for three bytes; those that are whole within the id's 36.
        let whole = id.div_ceil(3) * 4;
        let payload = &payload[whole..whole + 3 * WINDOW];
        let bytes = URL_SAFE_NO_PAD.decode(signature).unwrap();
        let of_signature = [Self::of(&signature.as_bytes()[..4 * WINDOW]), Self::of(&bytes[..4 * WINDOW])];
        of_signature.into_iter().fold(Self::of(payload.as_bytes()), Self::and)
    }

    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self::over(self.windows.iter().chain(&other.windows).map(<[u8; WINDOW]>::as_slice))
    }

    fn over<'a>(pieces: impl Iterator<Item = &'a [u8]>) -> Self {
        let mut needles = Self { windows: HashSet::new(), begins: vec![false; 1 << 16] };
        for piece in pieces {
            needles.begins[mark(piece[0], piece[1], piece[2])] = true;
            needles.windows.insert(piece.try_into().unwrap());
        }
        assert!(!needles.windows.is_empty(), "there is nothing to look for");
        needles
    }

    /// Whether one of them is in the memory of that process.
    pub(crate) fn are_in(&self, pid: u32) -> bool {
        let mut memory =
            fs::File::open(format!("/proc/{pid}/mem")).expect("reading another process needs root");
        regions(pid).into_iter().any(|(start, end)| {
            let mut bytes = vec![0; usize::try_from(end - start).unwrap()];
            // A region that went away meanwhile holds nothing any more.
            memory.seek(SeekFrom::Start(start)).is_ok()
                && memory.read_exact(&mut bytes).is_ok()
                && self.are_among(&bytes)
        })
    }

    fn are_among(&self, bytes: &[u8]) -> bool {
        let Some(last) = bytes.len().checked_sub(WINDOW) else { return false };
        let begins = self.begins.as_slice();
        let mut at = 0;
        // By hand: this is not optimised, and iterators would make it five times slower.
        while at <= last {
            if begins[mark(bytes[at], bytes[at + 1], bytes[at + 2])]
                && self.windows.contains(&bytes[at..at + WINDOW])
            {
                return true;
            }
            at += 1;
        }
        false
    }
}

fn mark(first: u8, second: u8, third: u8) -> usize {
    (first as usize) ^ ((second as usize) << 4) ^ ((third as usize) << 8)
}

/// Readable regions that hold pages of the process's own: what was never touched holds nothing, and a page of a mapped
/// file that was not written to is the file's.
fn regions(pid: u32) -> Vec<(u64, u64)> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).expect("reading another process needs root");
    let mut regions = Vec::new();
    let mut region = None;
    for line in smaps.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        match words.as_slice() {
            [name, pages, "kB"] if ["Anonymous:", "Shared_Dirty:"].contains(name) && *pages != "0" => {
                regions.extend(region.take());
            }
            [range, mode, ..] if mode.len() == 4 && range.contains('-') => {
                let (start, end) = range.split_once('-').unwrap();
                let address = |text| u64::from_str_radix(text, 16).unwrap();
                region = (mode.starts_with('r') && !line.ends_with("[vvar]"))
                    .then(|| (address(start), address(end)));
            }
            _ => {}
        }
    }
    assert!(!regions.is_empty(), "no memory was seen");
    regions
}
