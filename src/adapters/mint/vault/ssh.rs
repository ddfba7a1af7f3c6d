//! The end of an OpenSSH certificate, which Vault does not tell beside it (OpenSSH's `PROTOCOL.certkeys`).

use base64::{Engine as _, engine::general_purpose::STANDARD};
use jiff::Timestamp;

/// The first second at which a certificate is no longer valid.
pub(super) fn end(certificate: &str) -> Option<Timestamp> {
    let blob = STANDARD.decode(certificate.split_ascii_whitespace().nth(1)?).ok()?;
    let mut rest = Wire(&blob);
    let of_key = match std::str::from_utf8(rest.string()?).ok()? {
        "ssh-ed25519-cert-v01@openssh.com" => 1,
        "ssh-rsa-cert-v01@openssh.com"
        | "sk-ssh-ed25519-cert-v01@openssh.com"
        | "ecdsa-sha2-nistp256-cert-v01@openssh.com"
        | "ecdsa-sha2-nistp384-cert-v01@openssh.com"
        | "ecdsa-sha2-nistp521-cert-v01@openssh.com" => 2,
        "sk-ecdsa-sha2-nistp256-cert-v01@openssh.com" => 3,
        _ => return None,
    };
    // The nonce, and the parts of the key.
    for _ in 0..=of_key {
        rest.string()?;
    }
    let _serial = rest.take(8)?;
    let _kind = rest.take(4)?;
    let _key_id = rest.string()?;
    let _principals = rest.string()?;
    let _valid_after = rest.take(8)?;
    let valid_before = u64::from_be_bytes(rest.take(8)?.try_into().ok()?);
    Timestamp::from_second(i64::try_from(valid_before).ok()?).ok()
}

struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn string(&mut self) -> Option<&'a [u8]> {
        let length = u32::from_be_bytes(self.take(4)?.try_into().ok()?);
        self.take(usize::try_from(length).ok()?)
    }
}
