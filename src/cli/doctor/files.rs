//! The files that the configuration names: who may read keys and tokens, and until when certificates are good.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::{CertificateDer, pem::PemObject as _};

use super::Look;
use crate::{
    adapters::store::StorePlace,
    broker::Clock,
    cli::config::{Config, SealingKeyFrom},
};

/// When a certificate's end is worth a word: those of public authorities are renewed a third before it.
const SOON: SignedDuration = SignedDuration::from_hours(14 * 24);

pub(super) fn look(config: &Config) -> Vec<Look> {
    let mut looks: Vec<Look> = secret_files(config).iter().filter_map(|file| mode(file)).collect();
    if looks.is_empty() {
        looks.push(Look::fine("files", "keys, tokens and database are their owner's alone"));
    }
    let listeners = [&config.public, &config.admin];
    let certificates = listeners.into_iter().filter_map(|listener| listener.tls.as_ref());
    looks.extend(certificates.map(|tls| certificate(&tls.certificate.path, Clock::System.now())));
    looks
}

fn secret_files(config: &Config) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = config.admin_tokens.iter().map(|token| token.file.path.clone()).collect();
    if let SealingKeyFrom::File(file) = &config.sealing_key {
        files.push(file.path.clone());
    }
    files.extend(match &config.store {
        StorePlace::Postgres(place) => place.password_file().map(Path::to_owned),
        StorePlace::Sqlite(path) => Some(path.clone()),
    });
    let listeners = [&config.public, &config.admin];
    files.extend(listeners.into_iter().filter_map(|listener| Some(listener.tls.as_ref()?.key.path.clone())));
    files
}

fn mode(file: &Path) -> Option<Look> {
    let shown = file.display();
    let about = match fs::metadata(file) {
        Ok(about) => about,
        Err(fault) => {
            return Some(Look::failing(
                "files",
                format!("{shown}: {fault}"),
                "look at the path and its owner",
            ));
        }
    };
    let mode = about.permissions().mode() & 0o777;
    (mode & 0o077 != 0).then(|| {
        let found = format!("{shown} has mode {mode:04o}: others than its owner may read or write it");
        Look::failing("files", found, format!("chmod 600 {shown}"))
    })
}

fn certificate(file: &Path, now: Timestamp) -> Look {
    let shown = file.display();
    let advice = "have it renewed; the running broker takes a new one by itself";
    let Some((from, until)) = fs::read(file).ok().and_then(|pem| validity(&pem)) else {
        return Look::failing(
            "certificate",
            format!("{shown} holds no certificate"),
            "write the chain as PEM",
        );
    };
    if now < from {
        let found = format!("{shown} is good from {from} on only");
        return Look::failing("certificate", found, "look at this machine's clock, or wait");
    }
    if now >= until {
        return Look::failing("certificate", format!("{shown} ended {until}"), advice);
    }
    if now + SOON >= until {
        return Look::warning("certificate", format!("{shown} ends {until}"), advice);
    }
    Look::fine("certificate", format!("{shown} is good until {until}"))
}

/// From when until when the whole chain is good.
fn validity(pem: &[u8]) -> Option<(Timestamp, Timestamp)> {
    let moment = |time: x509_parser::time::ASN1Time| Timestamp::from_second(time.timestamp()).ok();
    let mut whole: Option<(Timestamp, Timestamp)> = None;
    for certificate in CertificateDer::pem_slice_iter(pem) {
        let certificate = certificate.ok()?;
        let (_, read) = x509_parser::parse_x509_certificate(&certificate).ok()?;
        let validity = read.validity();
        let (from, until) = (moment(validity.not_before)?, moment(validity.not_after)?);
        whole = Some(whole.map_or((from, until), |(first, last)| (first.max(from), last.min(until))));
    }
    whole
}

#[cfg(test)]
mod tests {
    use super::{super::Standing, *};

    #[test]
    fn certificate_is_judged_by_its_dates() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("tls.crt");
        let mut parameters = rcgen::CertificateParams::new(vec!["hallpass.test".to_owned()]).unwrap();
        parameters.not_before = rcgen::date_time_ymd(2027, 1, 1);
        parameters.not_after = rcgen::date_time_ymd(2027, 4, 1);
        let signed = parameters.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap();
        fs::write(&file, signed.pem()).unwrap();
        let standing = |at: &str| certificate(&file, at.parse().unwrap()).standing;
        assert_eq!(standing("2026-12-31T23:59:59Z"), Standing::Failing);
        assert_eq!(standing("2027-01-01T00:00:00Z"), Standing::Fine);
        assert_eq!(standing("2027-03-17T23:59:59Z"), Standing::Fine);
        assert_eq!(standing("2027-03-18T00:00:00Z"), Standing::Warning);
        assert_eq!(standing("2027-04-01T00:00:00Z"), Standing::Failing);
        fs::write(&file, "no certificate").unwrap();
        assert_eq!(standing("2027-02-01T00:00:00Z"), Standing::Failing);
    }
}
