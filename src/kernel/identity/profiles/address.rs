//! What profiles ask of an issuer's URL: which host and path it names. The loader has checked that it is a URL.

/// The parts of an issuer's URL that tell whose it is.
pub(super) struct Address<'a> {
    host: &'a str,
    path: &'a str,
}

impl<'a> Address<'a> {
    /// Takes a URL apart.
    pub(super) fn of(url: &'a str) -> Self {
        let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
        let (authority, path) = rest.find('/').map_or((rest, ""), |at| rest.split_at(at));
        let host = match authority.strip_prefix('[') {
            Some(inner) => inner.split(']').next().unwrap_or(inner),
            None => authority.split(':').next().unwrap_or(authority),
        };
        Self { host, path: path.trim_end_matches('/') }
    }

    /// Whether it is on that host.
    pub(super) fn is_host(&self, host: &str) -> bool {
        self.host.eq_ignore_ascii_case(host)
    }

    /// Whether it is on that host or one below it.
    pub(super) fn is_within(&self, domain: &str) -> bool {
        let below = |host: &str| host.strip_suffix(domain).is_some_and(|rest| rest.ends_with('.'));
        self.is_host(domain) || below(&self.host.to_ascii_lowercase())
    }

    /// The path without a slash at its end.
    pub(super) fn path(&self) -> &'a str {
        self.path
    }
}

/// Whether an address is a site's or lies below it: the same host and port, without ASCII case.
pub(super) fn is_at(site: &str, address: &str) -> bool {
    let address = address.to_ascii_lowercase();
    let rest = address.strip_prefix(site.trim_end_matches('/').to_ascii_lowercase().as_str());
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_read_whole_and_without_case() {
        for url in ["https://gitlab.com", "https://GitLab.com/", "http://gitlab.com:443/x"] {
            assert!(Address::of(url).is_host("gitlab.com"), "{url}");
        }
        for url in ["https://gitlab.com.evil.test", "https://evil.test/gitlab.com", "https://xgitlab.com"] {
            assert!(!Address::of(url).is_within("gitlab.com"), "{url}");
        }
        assert!(Address::of("https://app.eu.terraform.io").is_within("terraform.io"));
        assert!(Address::of("http://[::1]:8443/x").is_host("::1"));
        assert_eq!(Address::of("https://a.test/b/c/").path(), "/b/c");
    }

    #[test]
    fn a_site_holds_what_is_below_it() {
        for address in ["https://ghe.test", "https://GHE.test/acme", "https://ghe.test/"] {
            assert!(is_at("https://ghe.test/", address), "{address}");
        }
        for address in ["https://ghe.test.org/acme", "http://ghe.test", "https://x.ghe.test"] {
            assert!(!is_at("https://ghe.test", address), "{address}");
        }
    }
}
