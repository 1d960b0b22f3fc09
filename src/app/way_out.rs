//! The proxies on the way out: the configuration's, else for `run` those of the caller's environment.
//!
//! Invariant: `serve` takes no proxy that its configuration does not name (RT-19).

use std::path::PathBuf;

use crate::app::error::{AppError, ProxyFault};
use crate::config::{Config, ProxySource};
use crate::home::{self, Home};
use crate::upstream::chain::{Chain, Exceptions, ProxyUrl, ProxyUrlError};

/// A URL, and no more.
const MOST_URL: u64 = 16 * 1024;

/// The way out of this process.
pub(super) fn chain(config: &Config, home: &Home, inherited: Option<Chain>) -> Result<Option<Chain>, AppError> {
    let Some(source) = &config.upstream.proxy else { return Ok(inherited) };
    let except = Exceptions::parse(&config.upstream.no_proxy.join(","));
    Ok(Some(Chain::through(read(source, home)?, except)))
}

fn read(source: &ProxySource, home: &Home) -> Result<ProxyUrl, AppError> {
    let (place, text) = match source {
        ProxySource::Url(url) => ("keyferry.yaml".to_owned(), url.clone()),
        ProxySource::Env(name) => {
            let text = std::env::var(name).ok().filter(|text| !text.trim().is_empty());
            (name.clone(), text.ok_or_else(|| ProxyFault::Unset(name.clone()))?)
        }
        ProxySource::File(path) => {
            let path: PathBuf = home.resolve(path);
            let bytes = home::read_secret_file(&path, MOST_URL)?;
            let place = path.display().to_string();
            let malformed = |_| ProxyFault::Url { place: place.clone(), source: ProxyUrlError::Malformed };
            let text = std::str::from_utf8(&bytes).map_err(malformed)?.to_owned();
            (place, text)
        }
    };
    let parsed = ProxyUrl::parse(text.trim());
    Ok(parsed.map_err(|source| ProxyFault::Url { place, source })?)
}
