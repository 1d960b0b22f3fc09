//! Every way in which Keyferry itself answers, with its status, its standard word and its explanation.
//!
//! Invariant: nothing in here holds a value that came from outside; texts are constants.

use std::fmt;

use http::StatusCode;

macro_rules! codes {
    ($($(#[$doc:meta])* $variant:ident, $text:literal, $status:ident, $proxy:literal, $retry:literal, $explain:literal;)*) => {
        /// The code of an answer that Keyferry made, as `x-keyferry-error` and the log's `error` field carry it.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub enum Code { $($(#[$doc])* $variant,)* }

        impl Code {
            /// All of them, for listings and tests.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)*];

            /// The word on the wire and in logs.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $text,)* }
            }

            /// The HTTP status that goes with it.
            #[must_use]
            pub fn status(self) -> StatusCode {
                match self { $(Self::$variant => StatusCode::$status,)* }
            }

            /// The error type of RFC 9209 section 2.3 for the `Proxy-Status` field.
            #[must_use]
            pub fn proxy_status(self) -> &'static str {
                match self { $(Self::$variant => $proxy,)* }
            }

            /// Whether sending the same request again may work without anybody changing anything.
            #[must_use]
            pub fn retry_can_help(self) -> bool {
                match self { $(Self::$variant => $retry,)* }
            }

            /// What it means and what to do, for `keyferry explain`.
            #[must_use]
            pub fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $explain,)* }
            }
        }
    };
}

codes! {
    /// Malformed or ambiguous request.
    BadRequest, "bad_request", BAD_REQUEST, "http_request_error", false,
        "The request was malformed, its framing was ambiguous, or its target was not a valid origin.";
    /// Policy says no.
    PolicyDenied, "policy_denied", FORBIDDEN, "http_request_denied", false,
        "No rule lets this agent send this request. `keyferry why AGENT METHOD URL` shows which rule decided.";
    /// The address guard says no.
    DestinationProhibited, "destination_prohibited", FORBIDDEN, "destination_ip_prohibited", false,
        "The host is, or resolves to, a loopback, private, link-local, metadata or otherwise reserved address. \
         The operator can let a network through with upstream.allow_networks, or pin an origin with upstream.resolve.";
    /// A placeholder was sent where its credential does not belong.
    PlaceholderMisdirected, "placeholder_misdirected", FORBIDDEN, "http_request_denied", false,
        "The request carried a placeholder to a host that is not its credential's.";
    /// A credential would have gone over cleartext.
    CleartextRefused, "cleartext_refused", FORBIDDEN, "http_request_denied", false,
        "The host has a credential, and a credential is never sent over http://. Use https://.";
    /// Who is calling is not known.
    AgentUnauthenticated, "agent_unauthenticated", PROXY_AUTHENTICATION_REQUIRED, "http_request_denied", false,
        "The proxy needs an agent and its token: HTTPS_PROXY=http://AGENT:TOKEN@HOST:PORT. `keyferry env --agent NAME` prints it.";
    /// The body is over a limit.
    BodyTooLarge, "body_too_large", PAYLOAD_TOO_LARGE, "http_request_error", false,
        "The request body is over the configured limit.";
    /// The head is over a limit.
    HeadTooLarge, "head_too_large", REQUEST_HEADER_FIELDS_TOO_LARGE, "http_request_error", false,
        "The request's fields are over the limit of 64 KiB or 100 fields.";
    /// CONNECT authority, SNI and Host do not agree.
    AuthorityMismatch, "authority_mismatch", MISDIRECTED_REQUEST, "http_request_error", false,
        "The CONNECT authority, the TLS server name and the Host field must name the same origin.";
    /// Every profile is cooling.
    ProfilesCooling, "profiles_cooling", TOO_MANY_REQUESTS, "connection_limit_reached", true,
        "Every profile that this agent may use is cooling down. Retry-After says when the first is free; `keyferry profile list` shows all.";
    /// The agent's own limit.
    AgentRateLimited, "agent_rate_limited", TOO_MANY_REQUESTS, "connection_limit_reached", true,
        "The agent has reached a limit that the configuration gives it: agents.NAME.limits (requests in a time, requests at a \
         time, tokens). Retry-After says when one more may come.";
    /// Every profile is out of credit.
    BillingExhausted, "billing_exhausted", PAYMENT_REQUIRED, "http_request_denied", false,
        "Every profile that this agent may use is out of credit at the provider.";
    /// The method or upgrade is not passed on.
    MethodNotAllowed, "method_not_allowed", NOT_IMPLEMENTED, "http_request_denied", false,
        "TRACE, TRACK, DEBUG, a CONNECT inside a tunnel and unknown upgrades are not passed on.";
    /// No connection to the upstream.
    UpstreamUnreachable, "upstream_unreachable", BAD_GATEWAY, "destination_unavailable", true,
        "No TCP connection to the upstream could be made, or it broke before an answer.";
    /// The upstream's TLS did not verify.
    UpstreamTlsFailed, "upstream_tls_failed", BAD_GATEWAY, "tls_certificate_error", false,
        "The upstream's certificate did not verify, or the TLS handshake failed. No credential was opened. \
         A private root can be added with upstream.extra_roots.";
    /// The name did not resolve.
    UpstreamDnsFailed, "upstream_dns_failed", BAD_GATEWAY, "dns_error", true,
        "The upstream's name did not resolve.";
    /// The upstream spoke something else.
    UpstreamProtocolError, "upstream_protocol_error", BAD_GATEWAY, "http_protocol_error", true,
        "The upstream's answer was not valid HTTP.";
    /// A response that cannot be searched for secrets.
    ResponseUnscannable, "response_unscannable", BAD_GATEWAY, "http_response_content_coding", false,
        "The response has a content coding that cannot be searched for secrets, so it was not passed on.";
    /// Allowed but nothing stored.
    CredentialsMissing, "credentials_missing", BAD_GATEWAY, "proxy_configuration_error", false,
        "The agent may use this provider, but no credential is stored for it: keyferry secret set PROVIDER:NAME";
    /// A login is needed.
    NeedsLogin, "needs_login", BAD_GATEWAY, "proxy_configuration_error", false,
        "A stored login (type oauth2) has ended: its provider refused to renew it. Log in there again and store the new one: \
         keyferry secret set PROVIDER:NAME --type oauth2";
    /// The provider refused every credential.
    CredentialsRejected, "credentials_rejected", BAD_GATEWAY, "http_request_denied", false,
        "The provider refused every credential that this agent may use. Replace one: keyferry secret set PROVIDER:NAME";
    /// A request came back to us.
    ProxyLoop, "proxy_loop", LOOP_DETECTED, "proxy_loop_detected", false,
        "The request would have reached Keyferry again.";
    /// The vault is locked.
    VaultLocked, "vault_locked", SERVICE_UNAVAILABLE, "proxy_configuration_error", false,
        "The vault's master key is not available.";
    /// A record did not open.
    VaultCorrupt, "vault_corrupt", SERVICE_UNAVAILABLE, "proxy_internal_error", false,
        "A vault record did not pass its integrity check, so it was not used. `keyferry vault verify` names it.";
    /// Too much at once.
    Overloaded, "overloaded", SERVICE_UNAVAILABLE, "connection_limit_reached", true,
        "Keyferry is at a limit of its own (connections, buffers). Try again shortly.";
    /// The upstream says that it is overloaded.
    UpstreamOverloaded, "upstream_overloaded", SERVICE_UNAVAILABLE, "destination_unavailable", true,
        "The provider reports that it is overloaded.";
    /// The audit log cannot be written.
    AuditUnavailable, "audit_unavailable", SERVICE_UNAVAILABLE, "proxy_internal_error", true,
        "The audit log could not be written, and no credential is used without a record of it.";
    /// The upstream took too long.
    UpstreamTimeout, "upstream_timeout", GATEWAY_TIMEOUT, "http_response_timeout", true,
        "The upstream did not connect or answer in time.";
    /// A feature that is not built yet.
    NotAvailableYet, "not_available_yet", NOT_IMPLEMENTED, "proxy_configuration_error", false,
        "This part of Keyferry is not available yet.";
    /// A defect of ours.
    Internal, "internal_error", INTERNAL_SERVER_ERROR, "proxy_internal_error", true,
        "A defect in Keyferry. The log line of this request id has more.";
}

impl Code {
    /// Finds a code by its word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.as_str() == text)
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_is_found_by_its_word() {
        for code in Code::ALL {
            assert_eq!(Code::parse(code.as_str()), Some(*code));
            assert!(!code.explanation().is_empty());
        }
    }

    #[test]
    fn never_answers_401() {
        // A 401 of ours would send an agent into a login flow.
        assert!(Code::ALL.iter().all(|code| code.status() != StatusCode::UNAUTHORIZED));
    }
}
