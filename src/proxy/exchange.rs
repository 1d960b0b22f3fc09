//! One exchange, from its head to the body that is handed to the agent.
//!
//! Invariant: the steps are called in the order of the crate's chart; each takes the value that the one before made.
//! Nothing is decided or formatted here.

use std::sync::Arc;

use http::header::{CONNECTION, EXPECT, HOST, HeaderValue, ORIGIN};
use http::{HeaderMap, Request, Response, Version};
use hyper::body::Incoming;

use crate::agent::{Agent, IdentityError};
use crate::clock::WallTime;
use crate::code::Code;
use crate::id::{AgentName, ProviderId};
use crate::message::origin::{Host, Origin, Scheme};
use crate::message::path::Path;
use crate::policy::limit::Share;
use crate::policy::{Action, Refusal};
use crate::provider::{self, Provider};
use crate::proxy::account::Account;
use crate::proxy::carried::Carried;
use crate::proxy::carry;
use crate::proxy::delivery::Delivery;
use crate::proxy::foreign::{self, Treatment};
use crate::proxy::limits::ASK_BODY;
use crate::proxy::misplaced::{self, Guard};
use crate::proxy::peer::{Door, Peer};
use crate::proxy::respond::{Answer, Manner};
use crate::proxy::state::{Shared, View};
use crate::proxy::target::{self, Way};
use crate::proxy::websocket::{self, Asked};
use crate::telemetry::Decision;
use crate::tls::Protocol;
use crate::upstream::Hop;
use crate::upstream::body::Upload;

/// Where a request came from.
#[derive(Debug)]
pub struct Caller {
    /// Who is at the other end.
    pub client: Peer,
    /// The listener, as logs name it.
    pub listener: &'static str,
    /// The way in.
    pub entrance: Entrance,
    /// Version and group of the TLS that we answered as the origin.
    pub tls: Option<String>,
}

/// The way in, and what it settled already.
#[derive(Debug)]
pub enum Entrance {
    /// Inside an intercepted tunnel.
    Tunnel {
        /// Who opened it.
        agent: Agent,
        /// Its authority.
        origin: Origin,
    },
    /// On the proxy port, with an absolute URI.
    Absolute {
        /// Whether it cannot have crossed a network: `https://` in cleartext is for it alone.
        local: bool,
        /// Who it is without credentials.
        door: Door,
    },
    /// On the base-URL listener.
    BaseUrl {
        /// Who it is without credentials.
        door: Door,
    },
}

impl Caller {
    fn manner(&self) -> Manner {
        match self.entrance {
            Entrance::Absolute { .. } => Manner::Proxy,
            Entrance::Tunnel { .. } | Entrance::BaseUrl { .. } => Manner::Origin,
        }
    }
}

/// Serves one request.
pub async fn run(shared: &Arc<Shared>, caller: &Caller, mut request: Request<Incoming>) -> Response<Delivery> {
    let now = shared.clock.now();
    let mut account = Account::open(&shared.books, now, caller.listener, caller.client);
    let socket = websocket::asked(shared, &mut request);
    account.head(request.method(), request.version());
    account.record().tls.clone_from(&caller.tls);
    match prepare(shared, caller, request, socket, &mut account, now) {
        Ok(carried) => {
            if let Err(answer) = misplaced::body(shared, &carried).await {
                return answered(&answer, account, caller.manner());
            }
            match carry::run(shared, carried, account).await {
                Ok(response) => response,
                Err((answer, account)) => answered(&answer, account, caller.manner()),
            }
        }
        Err(answer) => answered(&answer, account, caller.manner()),
    }
}

/// Makes the response of an answer of ours; the account ends here.
fn answered(answer: &Answer, mut account: Account, manner: Manner) -> Response<Delivery> {
    let mut response = answer.response(account.id(), manner);
    if matches!(answer.code, Code::AgentUnauthenticated | Code::AgentRateLimited) && manner == Manner::Origin {
        // A tunnel whose agent is gone has no further use.
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
    account.answered(answer.code, Some(response.status().as_u16()));
    account.record().bytes_out = http_body::Body::size_hint(response.body()).lower();
    account.first_byte();
    response
}

/// Who, where to, may it, strip: everything that needs no waiting.
fn prepare(
    shared: &Arc<Shared>,
    caller: &Caller,
    request: Request<Incoming>,
    socket: Result<Option<Asked>, Answer>,
    account: &mut Account,
    now: WallTime,
) -> Result<Carried, Answer> {
    let view = shared.view.load_full();
    let (mut parts, body) = request.into_parts();
    let (agent, origin, path) = admit(shared, &view, caller, &mut parts, account, now)?;
    let socket = socket?;
    account.origin(&origin);
    account.record().path = Some(path.path().to_owned());
    let named = account.record().provider.clone().filter(|_| matches!(caller.entrance, Entrance::BaseUrl { .. }));
    let decided = match &named {
        None => view.policy.decide(agent.name(), origin.clone(), &parts.method, &path),
        Some(provider) => view.policy.decide_provider(agent.name(), provider, origin.clone(), &parts.method, &path),
    };
    let permit = decided.map_err(|refusal| {
        account.record().rule = Some(refusal.rule().to_string());
        account.record().provider = refusal.provider().cloned();
        refusal_answer(&refusal, agent.name(), parts.method.as_str(), &origin, Some(&path))
    })?;
    account.record().rule = Some(permit.rule().to_string());
    account.record().would_deny = permit.would_deny();
    let provider = match permit.action() {
        Action::Forward => None,
        Action::Inject { provider, .. } => {
            account.record().decision = Decision::Injected;
            account.record().provider = Some(provider.clone());
            let known = view.catalogue.provider(provider).cloned();
            let known = known.ok_or_else(|| Answer::of(Code::CredentialsMissing))?;
            // A host may have pages that take no credential beside its interface: github.com does.
            Some(known).filter(|provider| provider.takes_credential(&origin, path.path()))
        }
    };
    if provider.is_none() {
        account.record().decision = Decision::Forwarded;
    }
    let presented = provider.as_ref().and_then(|provider| provider::presented(&parts, provider));
    if let (Some(text), Some(shown)) = (&presented, &mut account.record().path) {
        // It may be a real key in a path, and a refusal from here on writes the line.
        *shown = shown.replace(text.as_str(), "-");
    }
    let guard = Guard::new(shared, &view, agent.name(), &origin, account.id());
    guard.head(&parts, presented.as_deref())?;
    let treatment = match (&provider, &presented) {
        (Some(provider), Some(text)) => foreign::treat(&view, &shared.books, provider, agent.name(), text)?,
        _ => Treatment::Inject,
    };
    account.hold_share(enter(shared, &agent, provider.as_deref(), now)?);
    // We have the body read before it is sent on, so the agent's wait for a 100 ends with us.
    parts.headers.remove(EXPECT);
    let hop = if socket.is_some() { Hop::Socket } else { Hop::of(&parts.headers) };
    let version = parts.version;
    let as_it_came = (treatment == Treatment::Pass).then(|| parts.clone());
    let stripped = provider::strip(parts, &permit, provider.as_deref())
        .map_err(|error| Answer::saying(error.code(), error.to_string()))?;
    // A credential may stand in the path: the log gets it with that slot blank.
    account.record().path = Some(stripped.shown_path());
    let (provider, stripped) = match as_it_came {
        Some(parts) => {
            account.record().decision = Decision::Forwarded;
            let stripped = provider::strip(parts, &permit, None);
            (None, stripped.map_err(|error| Answer::saying(error.code(), error.to_string()))?)
        }
        None => (provider, stripped),
    };
    let fungible = provider.as_ref().is_some_and(|provider| provider.fungible);
    let limit = if fungible { shared.limits.replay } else { usize::try_from(ASK_BODY).unwrap_or(0) };
    let upload = Upload::new(body, version, limit, &shared.budget);
    upload.watch(guard.look());
    let path = path.path().to_owned();
    let spoken = if version == Version::HTTP_2 { Protocol::Http2 } else { Protocol::Http1 };
    Ok(Carried { view, agent, permit, provider, stripped, path, presented, upload, spoken, hop, socket })
}

/// Lets one more exchange of an agent begin, within its limits.
///
/// # Errors
/// The [`Answer`] where it has reached one.
pub fn enter(
    shared: &Shared,
    agent: &Agent,
    provider: Option<&Provider>,
    now: WallTime,
) -> Result<Option<Share>, Answer> {
    shared.rations.enter(agent.name(), now).map_err(|excess| {
        let agent = agent.name();
        let message = format!("agent '{agent}' has reached its limit of {} {}", excess.limit, in_words(excess.key));
        let word = provider.and_then(|provider| provider.family?.error_word(Code::AgentRateLimited));
        Answer::saying(Code::AgentRateLimited, message)
            .hint(format!("the operator sets it: agents.{agent}.limits.{}", excess.key))
            .after(Some(excess.wait))
            .word(word)
    })
}

fn in_words(key: &str) -> &'static str {
    match key {
        "requests" => "requests",
        "tokens" => "tokens",
        _ => "requests at a time",
    }
}

/// Who is calling and where to, by the way the request came in.
fn admit(
    shared: &Shared,
    view: &View,
    caller: &Caller,
    parts: &mut http::request::Parts,
    account: &mut Account,
    now: WallTime,
) -> Result<(Agent, Origin, Path), Answer> {
    let unknown = || Answer::of(Code::AgentUnauthenticated);
    let read =
        |parts: &http::request::Parts, way| target::read(&parts.method, &parts.uri, parts.version, &parts.headers, way);
    match &caller.entrance {
        Entrance::Tunnel { agent, origin } => {
            account.agent(agent.name());
            account.origin(origin);
            // A revocation reaches tunnels that are open already.
            if !view.agents.still_valid(agent, now) {
                return Err(unknown());
            }
            let (origin, path) = read(parts, Way::Tunnel(origin))?;
            Ok((agent.clone(), origin, path))
        }
        Entrance::Absolute { local, door } => {
            let identified = view.agents.identify_at(&parts.headers, door.resident(), now);
            let agent = identified.map_err(|error| shared.guesses.answer(caller.client, error))?;
            account.agent(agent.name());
            let (origin, path) = read(parts, Way::Absolute)?;
            if origin.scheme() == Scheme::Https && !local {
                return Err(Answer::saying(
                    Code::CleartextRefused,
                    "a request for https:// in cleartext is taken from this machine only; use CONNECT",
                ));
            }
            Ok((agent, origin, path))
        }
        Entrance::BaseUrl { door } => base_url(shared, view, caller.client, parts, door, account, now),
    }
}

/// `/provider/path`: the provider's name stands for its origin, and the agent is known by what stands where the
/// provider's key would.
fn base_url(
    shared: &Shared,
    view: &View,
    client: Peer,
    parts: &mut http::request::Parts,
    door: &Door,
    account: &mut Account,
    now: WallTime,
) -> Result<(Agent, Origin, Path), Answer> {
    check_own_host(&parts.headers, parts.version)?;
    let text = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let (name, rest) =
        text.strip_prefix('/').and_then(|text| text.split_once('/')).unwrap_or((text.trim_start_matches('/'), ""));
    let unknown_provider = || {
        let hint = view.catalogue.suggest(name).map_or_else(
            || "the form is http://HOST:PORT/PROVIDER/PATH; keyferry provider list shows the providers".to_owned(),
            |near| format!("did you mean /{near}/ ?"),
        );
        Answer::saying(Code::PolicyDenied, "the path does not begin with a provider's name").hint(hint)
    };
    let id = ProviderId::parse(name).map_err(|_| unknown_provider())?;
    let provider = view.catalogue.provider(&id).ok_or_else(unknown_provider)?;
    account.record().provider = Some(id.clone());
    let presented = provider::presented(parts, provider);
    let error = if presented.is_some() { IdentityError::Unknown } else { IdentityError::Missing };
    let said = presented.and_then(|presented| {
        let by_token = view.agents.by_token(presented.as_bytes(), None, now).ok();
        by_token.or_else(|| {
            let owner = view.credentials.owner(&presented, &id, &view.names)?;
            view.agents.by_placeholder(owner, now)
        })
    });
    let agent = said.or_else(|| door.resident().cloned()).ok_or_else(|| shared.guesses.answer(client, error))?;
    account.agent(agent.name());
    let host = view.own_origin(provider, agent.name()).ok_or_else(|| Answer::of(Code::CredentialsMissing))?;
    parts.uri = format!("/{rest}").parse().map_err(|_| Answer::of(Code::BadRequest))?;
    let way = Way::BaseUrl(&host);
    let (origin, path) = target::read(&parts.method, &parts.uri, parts.version, &parts.headers, way)?;
    // A step up would lead out of the provider's part of our own paths, for whoever reads it so.
    if path.path().split('/').any(is_dots) {
        return Err(Answer::saying(Code::BadRequest, "the path has dot segments"));
    }
    Ok((agent, origin, path))
}

/// Whether a segment is `.` or `..`, escaped or not (RFC 3986 section 5.2.4).
fn is_dots(segment: &str) -> bool {
    matches!(segment.to_ascii_lowercase().replace("%2e", ".").as_str(), "." | "..")
}

/// A page that a browser was led to must not be able to use the base-URL listener (RT-14).
fn check_own_host(fields: &HeaderMap, version: Version) -> Result<(), Answer> {
    let refused = || Answer::saying(Code::PolicyDenied, "this listener answers to its own address only");
    if fields.contains_key(ORIGIN) {
        return Err(refused());
    }
    let Some(host) = fields.get(HOST) else {
        return if version == Version::HTTP_11 { Err(refused()) } else { Ok(()) };
    };
    let origin =
        host.to_str().ok().and_then(|text| Origin::from_authority(Scheme::Http, text).ok()).ok_or_else(refused)?;
    match origin.host() {
        Host::Address(_) => Ok(()),
        Host::Name(name) if &**name == "localhost" => Ok(()),
        Host::Name(_) => Err(refused()),
    }
}

/// The answer to a refusal of policy, the same for an unknown host and for one that is another agent's.
pub fn refusal_answer(
    refusal: &Refusal,
    agent: &AgentName,
    method: &str,
    origin: &Origin,
    path: Option<&Path>,
) -> Answer {
    let code = refusal.code();
    let shown = match path {
        Some(path) => format!("{}{}", origin.authority(), path.path()),
        None => format!("{}:{}", origin.host(), origin.port()),
    };
    match refusal {
        Refusal::Denied(_) => Answer::saying(code, format!("{method} {shown} is not allowed for agent '{agent}'"))
            .hint(format!(
                "ask the operator to run: keyferry why {agent} {method} {origin}{}",
                path.map_or("/", Path::path)
            )),
        Refusal::Cleartext(_) => {
            Answer::saying(code, format!("{} has a credential, which is never sent over http://", origin.host()))
                .hint("use https://")
        }
        Refusal::MissingCredentials(provider, _) => {
            Answer::saying(code, format!("agent '{agent}' may use {provider}, but no credential is stored for it"))
                .hint(format!("ask the operator to run: keyferry secret set {provider}:NAME"))
        }
        Refusal::AmbiguousPath(_) => Answer::saying(code, "the path can be read in more than one way"),
    }
}
