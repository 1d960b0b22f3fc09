//! Which program opened a tunnel, as far as its CONNECT tells, and how that program is given the CA.
//!
//! Invariant: what a client says of itself decides a hint in a log line, and nothing else.

use http::header::{ACCEPT, HOST, USER_AGENT};
use http::{HeaderMap, Request, Version};

/// A kind of program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Program {
    /// As logs name it.
    pub name: &'static str,
    /// How it is given the CA.
    pub hint: &'static str,
}

const BUNDLE: &str = "SSL_CERT_FILE=ca/bundle.pem of the home";

/// How a `User-Agent` begins, or what stands in it; the first that fits.
const BY_NAME: &[(&str, Program)] = &[
    (
        "curl/",
        Program {
            name: "curl",
            hint: "CURL_CA_BUNDLE or --cacert: ca/bundle.pem of the home; --cacert and cacert in ~/.curlrc win over it",
        },
    ),
    (
        "Wget/",
        Program { name: "wget", hint: "ca_certificate = ca/bundle.pem of the home, in the file that WGETRC names" },
    ),
    (
        "git/",
        Program {
            name: "git",
            hint: "GIT_SSL_CAINFO=ca/bundle.pem of the home; http.sslCAInfo in a git config does not win over it",
        },
    ),
    (
        "Go-http-client/",
        Program {
            name: "Go",
            hint: "SSL_CERT_FILE=ca/bundle.pem of the home; on macOS and Windows: keyferry ca trust",
        },
    ),
    (
        "grpc-go/",
        Program {
            name: "grpc-go",
            hint: "SSL_CERT_FILE=ca/bundle.pem of the home; on macOS and Windows: keyferry ca trust",
        },
    ),
    (
        "grpc-httpcli/",
        Program { name: "gRPC (C core)", hint: "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=ca/bundle.pem of the home" },
    ),
    (
        "grpc-node-js/",
        Program { name: "gRPC (Node)", hint: "GRPC_DEFAULT_SSL_ROOTS_FILE_PATH=ca/bundle.pem of the home" },
    ),
    ("Deno/", Program { name: "Deno", hint: "DENO_CERT=ca/ca.pem of the home" }),
    ("Bun/", Program { name: "Bun", hint: "NODE_EXTRA_CA_CERTS=ca/ca.pem of the home" }),
    (
        "Java",
        Program {
            name: "Java",
            hint: "-Djavax.net.ssl.trustStore in JAVA_TOOL_OPTIONS: keyferry run makes that store",
        },
    ),
    (
        "python-requests/",
        Program {
            name: "requests",
            hint: "REQUESTS_CA_BUNDLE=ca/bundle.pem of the home; verify= in the code wins over it",
        },
    ),
    ("aiohttp/", Program { name: "aiohttp", hint: BUNDLE }),
    ("websockets/", Program { name: "websockets", hint: BUNDLE }),
    ("python-httpx", Program { name: "httpx", hint: BUNDLE }),
    ("Boto", Program { name: "boto3", hint: "AWS_CA_BUNDLE=ca/bundle.pem of the home" }),
    ("aws-", Program { name: "the AWS tools", hint: "AWS_CA_BUNDLE=ca/bundle.pem of the home" }),
    ("pip/", Program { name: "pip", hint: "PIP_CERT=ca/bundle.pem of the home" }),
    ("cargo", Program { name: "cargo", hint: "CARGO_HTTP_CAINFO=ca/bundle.pem of the home" }),
    (
        "npm/",
        Program {
            name: "npm",
            hint: "npm_config_cafile=ca/bundle.pem of the home: a cafile in an npmrc hides NODE_EXTRA_CA_CERTS",
        },
    ),
    ("node", NODE),
    ("Ruby", Program { name: "Ruby", hint: BUNDLE }),
    (
        "PHP",
        Program {
            name: "PHP",
            hint: "curl.cainfo and openssl.cafile in an ini file of the directory that PHP_INI_SCAN_DIR names",
        },
    ),
];

const NODE: Program = Program { name: "Node", hint: "NODE_EXTRA_CA_CERTS=ca/ca.pem of the home" };

/// `http.client`, under urllib, requests, boto3 and pip, sends nothing of itself, and HTTP/1.0 before Python 3.12.
const PYTHON: Program = Program {
    name: "Python (urllib, requests, boto3 or pip)",
    hint: "SSL_CERT_FILE, REQUESTS_CA_BUNDLE, AWS_CA_BUNDLE and PIP_CERT, for each its own: ca/bundle.pem of the home",
};

const HTTPX: Program = Program { name: "httpx", hint: BUNDLE };

/// They say nothing of themselves but a field that browsers once sent.
const SILENT: Program = Program {
    name: "Node, Bun or PHP",
    hint: "NODE_EXTRA_CA_CERTS=ca/ca.pem of the home; PHP: curl.cainfo in an ini file of PHP_INI_SCAN_DIR's directory",
};

impl Program {
    /// Nothing is known of it.
    pub const UNKNOWN: Self = Self {
        name: "unknown",
        hint: "start it with keyferry run, or set the variable that it reads for its roots: keyferry env prints them all",
    };

    /// Who sent this CONNECT.
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Self {
        let fields = request.headers();
        let named = fields.get(USER_AGENT).map(|value| String::from_utf8_lossy(value.as_bytes()).to_ascii_lowercase());
        match named {
            Some(agent) => {
                let known = BY_NAME.iter().find(|(word, _)| agent.contains(&word.to_ascii_lowercase()));
                known.map_or(Self::UNKNOWN, |(_, program)| *program)
            }
            None => Self::by_manners(request.version(), fields),
        }
    }

    fn by_manners(version: Version, fields: &HeaderMap) -> Self {
        if version == Version::HTTP_10 && !fields.contains_key(HOST) {
            PYTHON
        } else if fields.contains_key("proxy-connection") {
            SILENT
        } else if fields.contains_key(ACCEPT) {
            HTTPX
        } else {
            Self::UNKNOWN
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn named(version: Version, fields: &[(&str, &str)]) -> &'static str {
        let mut request = Request::builder().method("CONNECT").uri("api.x.test:443").version(version);
        for (name, value) in fields {
            request = request.header(*name, *value);
        }
        Program::of(&request.body(()).unwrap()).name
    }

    #[test]
    fn programs_are_known_by_what_they_really_send() {
        let host = ("host", "api.x.test:443");
        let silent = ("proxy-connection", "keep-alive");
        for (agent, name) in [
            ("curl/7.88.1", "curl"),
            ("Wget/1.21.3", "wget"),
            ("git/2.39.5", "git"),
            ("Go-http-client/1.1", "Go"),
            ("grpc-go/1.85.0", "grpc-go"),
            ("grpc-httpcli/0.0", "gRPC (C core)"),
            ("Deno/2.9.6", "Deno"),
            ("Bun/1.4.5", "Bun"),
            ("Java/17.0.15", "Java"),
            ("Java-http-client/17.0.15", "Java"),
            ("Python/3.11 aiohttp/3.14.5", "aiohttp"),
            ("Python/3.11 websockets/17.4", "websockets"),
            ("python-requests/2.34.2", "requests"),
            ("something/1", "unknown"),
        ] {
            assert_eq!(named(Version::HTTP_11, &[host, ("user-agent", agent), silent]), name, "{agent}");
        }
        assert_eq!(named(Version::HTTP_10, &[]), PYTHON.name);
        assert_eq!(named(Version::HTTP_11, &[host, silent]), SILENT.name);
        assert_eq!(named(Version::HTTP_11, &[host, ("accept", "*/*")]), "httpx");
        assert_eq!(named(Version::HTTP_11, &[host]), "unknown");
    }
}
