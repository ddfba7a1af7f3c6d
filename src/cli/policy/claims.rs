//! Claims from a file: a token whose signature nobody checks here, or the payload of one. They are shown and decided
//! about, never believed: whatever uses them says so.

use std::{io::Read as _, path::Path};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use crate::{
    cli::exit::Failure,
    kernel::{
        json::{Bounds, read_strict},
        wiping::Zeroizing,
    },
};

/// Reads the payload of a token; `-` is stdin. The signature is not looked at.
///
/// # Errors
///
/// [`Failure`] that holds no part of the token.
pub(crate) fn of_token(path: &Path) -> Result<Map<String, Value>, Failure> {
    let bytes = read(path)?;
    let no_token = || {
        let message =
            format!("{} holds no token: three parts of base64url with dots between", path.display());
        Failure::usage(message)
    };
    let text = std::str::from_utf8(&bytes).map_err(|_| no_token())?.trim();
    let mut parts = text.split('.');
    let (Some(_), Some(payload), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(no_token());
    };
    let payload = URL_SAFE_NO_PAD.decode(payload).map_err(|_| no_token())?;
    object(&payload, path)
}

/// Reads a payload as JSON; `-` is stdin.
///
/// # Errors
///
/// [`Failure`] where it is no JSON object that a token could hold.
pub(crate) fn of_file(path: &Path) -> Result<Map<String, Value>, Failure> {
    object(&read(path)?, path)
}

fn read(path: &Path) -> Result<Zeroizing<Vec<u8>>, Failure> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(MOST_BYTES));
    let limit = MOST_BYTES as u64 + 1;
    let read = if path == Path::new("-") {
        std::io::stdin().lock().take(limit).read_to_end(&mut bytes)
    } else {
        std::fs::File::open(path).and_then(|file| file.take(limit).read_to_end(&mut bytes))
    };
    read.map_err(|fault| Failure::file(path, &fault))?;
    if bytes.len() > MOST_BYTES {
        return Err(Failure::usage(format!(
            "{} has more than 64 KiB; no token is that large",
            path.display()
        )));
    }
    Ok(bytes)
}

fn object(bytes: &[u8], path: &Path) -> Result<Map<String, Value>, Failure> {
    match read_strict(bytes, BOUNDS) {
        Ok(Value::Object(claims)) => Ok(claims),
        Ok(_) | Err(_) => {
            let message =
                format!("{} is no JSON object with each key once, as a token's claims are", path.display());
            Err(Failure::usage(message))
        }
    }
}

/// Far above the 8 KiB that a token may have, since a file may be indented.
const MOST_BYTES: usize = 64 * 1024;
const BOUNDS: Bounds = Bounds { depth: 8, nodes: 1024, string_bytes: 2048 };
