//! What leaves for every provider of the catalogue, and for the requests that try to bring more with them.
//!
//! The table is written down from the providers' own clients and documentation, apart from the catalogue: where the
//! two differ, one of them is wrong.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::Request;
use http::request::Parts;

use super::inject::inject_for;
use super::kind::{Kind, Provider};
use super::request::strip_for;
use super::{Catalogue, Credential, Injected, presented};
use crate::id::{ProfileId, ProviderId};
use crate::message::origin::{Origin, Scheme};
use crate::message::pattern::HostPattern;
use crate::secret::Secret;

/// `provider kind host path | slots`: the first line of a kind and host is what a request gets that has no slot of
/// the provider. Slots that are filled together are joined by ` & `.
const TABLE: &str = "
anthropic api-key api.anthropic.com /v1/messages | x-api-key: {secret}
anthropic api-key api.anthropic.com /v1/messages | authorization: Bearer {secret}
anthropic setup-token api.anthropic.com /v1/messages | authorization: Bearer {secret}
openai api-key api.openai.com /v1/responses | authorization: Bearer {secret}
codex access-token chatgpt.com /backend-api/codex/models | authorization: Bearer {secret}
azure-openai api-key tenant.openai.azure.com /openai/deployments | api-key: {secret}
azure-openai api-key tenant.services.ai.azure.com /anthropic/v1/messages | api-key: {secret}
azure-openai api-key tenant.services.ai.azure.com /anthropic/v1/messages | x-api-key: {secret}
gemini api-key generativelanguage.googleapis.com /v1beta/models | x-goog-api-key: {secret}
gemini api-key generativelanguage.googleapis.com /v1beta/models | query key={secret}
gemini api-key generativelanguage.googleapis.com /v1beta/openai/models | authorization: Bearer {secret}
vertex api-key aiplatform.googleapis.com /v1/publishers | x-goog-api-key: {secret}
vertex api-key aiplatform.googleapis.com /v1/publishers | query key={secret}
bedrock bearer bedrock-runtime.us-east-1.amazonaws.com /model/x/invoke | authorization: Bearer {secret}
mistral api-key api.mistral.ai /v1/models | authorization: Bearer {secret}
groq api-key api.groq.com /openai/v1/models | authorization: Bearer {secret}
xai api-key api.x.ai /v1/models | authorization: Bearer {secret}
xai management-key management-api.x.ai /auth/teams | authorization: Bearer {secret}
deepseek api-key api.deepseek.com /chat/completions | authorization: Bearer {secret}
deepseek api-key api.deepseek.com /anthropic/v1/messages | x-api-key: {secret}
zai api-key api.z.ai /api/paas/v4/chat/completions | authorization: Bearer {secret}
zai api-key open.bigmodel.cn /api/anthropic/v1/messages | x-api-key: {secret}
minimax api-key api.minimax.io /v1/text | authorization: Bearer {secret}
minimax api-key api.minimax.io /anthropic/v1/messages | x-api-key: {secret}
moonshot api-key api.moonshot.ai /v1/models | authorization: Bearer {secret}
kimi-coding api-key api.kimi.com /coding/v1/models | authorization: Bearer {secret}
kimi-coding api-key api.kimi.com /coding/v1/messages | x-api-key: {secret}
dashscope api-key dashscope.aliyuncs.com /compatible-mode/v1/models | authorization: Bearer {secret}
openrouter api-key openrouter.ai /api/v1/key | authorization: Bearer {secret}
together api-key api.together.xyz /v1/models | authorization: Bearer {secret}
fireworks api-key api.fireworks.ai /inference/v1/models | authorization: Bearer {secret}
cohere api-key api.cohere.com /v2/chat | authorization: Bearer {secret}
perplexity api-key api.perplexity.ai /chat/completions | authorization: Bearer {secret}
cerebras api-key api.cerebras.ai /v1/models | authorization: Bearer {secret}
huggingface token huggingface.co /api/whoami-v2 | authorization: Bearer {secret}
huggingface token tenant.endpoints.huggingface.cloud / | authorization: Bearer {secret}
replicate token api.replicate.com /v1/account | authorization: Bearer {secret}
voyage api-key api.voyageai.com /v1/embeddings | authorization: Bearer {secret}
jina api-key api.jina.ai /v1/embeddings | authorization: Bearer {secret}
nvidia-nim api-key integrate.api.nvidia.com /v1/models | authorization: Bearer {secret}
ollama-cloud api-key ollama.com /api/chat | authorization: Bearer {secret}
vercel-ai-gateway api-key ai-gateway.vercel.sh /v1/models | authorization: Bearer {secret}
baseten api-key inference.baseten.co /v1/models | authorization: Bearer {secret}
deepinfra api-key api.deepinfra.com /v1/openai/models | authorization: Bearer {secret}
opencode-zen api-key opencode.ai /zen/v1/models | authorization: Bearer {secret}
fal api-key fal.run /x | authorization: Key {secret}
elevenlabs api-key api.elevenlabs.io /v1/user | xi-api-key: {secret}
deepgram api-key api.deepgram.com /v1/projects | authorization: Token {secret}
assemblyai api-key api.assemblyai.com /v2/transcript | authorization: {secret}
cartesia api-key api.cartesia.ai /voices | authorization: Bearer {secret}
cartesia api-key api.cartesia.ai /voices | x-api-key: {secret}
brave-search api-key api.search.brave.com /res/v1/web/search | x-subscription-token: {secret}
tavily api-key api.tavily.com /search | authorization: Bearer {secret}
exa api-key api.exa.ai /search | x-api-key: {secret}
serpapi query serpapi.com /search | query api_key={secret}
serper api-key google.serper.dev /search | x-api-key: {secret}
firecrawl api-key api.firecrawl.dev /v2/scrape | authorization: Bearer {secret}
you api-key api.ydc-index.io /search | x-api-key: {secret}
searchapi api-key www.searchapi.io /api/v1/search | authorization: Bearer {secret}
searchapi api-key www.searchapi.io /api/v1/search | query api_key={secret}
apify token api.apify.com /v2/acts | authorization: Bearer {secret}
apify token api.apify.com /v2/acts | query token={secret}
github token api.github.com /user | authorization: Bearer {secret}
github token api.github.com /user | authorization: token {secret}
github token github.com /acme/x.git/info/refs | basic x-access-token:{secret}
github token github.com /acme/x.git/info/lfs/objects/batch | basic x-access-token:{secret}
github token github.com /acme/x/git-receive-pack | basic x-access-token:{secret}
gitlab token gitlab.com /api/v4/user | private-token: {secret}
gitlab token gitlab.com /api/v4/user | authorization: Bearer {secret}
gitlab token gitlab.com /acme/sub/x.git/git-upload-pack | basic oauth2:{secret}
bitbucket basic api.bitbucket.org /2.0/user | basic {user}:{secret}
bitbucket basic bitbucket.org /acme/x.git/info/refs | basic {user}:{secret}
bitbucket access-token api.bitbucket.org /2.0/user | authorization: Bearer {secret}
bitbucket access-token bitbucket.org /acme/x.git/info/refs | basic x-token-auth:{secret}
vercel token api.vercel.com /v2/user | authorization: Bearer {secret}
netlify token api.netlify.com /api/v1/sites | authorization: Bearer {secret}
cloudflare token api.cloudflare.com /client/v4/zones | authorization: Bearer {secret}
cloudflare global-key api.cloudflare.com /client/v4/zones | x-auth-email: {email} & x-auth-key: {secret}
fly token api.machines.dev /v1/apps | authorization: Bearer {secret}
sentry token sentry.io /api/0/auth/validate/ | authorization: Bearer {secret}
datadog api-key api.datadoghq.com /api/v1/validate | dd-api-key: {secret}
datadog key-pair api.datadoghq.eu /api/v2/users | dd-api-key: {api_key} & dd-application-key: {app_key}
pagerduty api-key api.pagerduty.com /users | authorization: Token token={secret}
posthog api-key us.posthog.com /api/users/@me/ | authorization: Bearer {secret}
terraform-cloud token app.terraform.io /api/v2/account/details | authorization: Bearer {secret}
langsmith api-key api.smith.langchain.com /api/v1/api-key | x-api-key: {secret}
langfuse basic cloud.langfuse.com /api/public/projects | basic {user}:{secret}
wandb api-key api.wandb.ai /graphql | basic api:{secret}
databricks token tenant.cloud.databricks.com /api/2.0/clusters/list | authorization: Bearer {secret}
launchdarkly token app.launchdarkly.com /api/v2/caller-identity | authorization: {secret}
linear api-key api.linear.app /graphql | authorization: {secret}
linear bearer api.linear.app /graphql | authorization: Bearer {secret}
jira basic tenant.atlassian.net /rest/api/3/myself | basic {user}:{secret}
jira basic api.atlassian.com /ex/jira/1/rest/api/3/myself | basic {user}:{secret}
jira bearer api.atlassian.com /ex/jira/1/rest/api/3/myself | authorization: Bearer {secret}
jira admin-key api.atlassian.com /admin/v1/orgs | authorization: Bearer {secret}
notion token api.notion.com /v1/users | authorization: Bearer {secret}
airtable token api.airtable.com /v0/meta/whoami | authorization: Bearer {secret}
asana token app.asana.com /api/1.0/users/me | authorization: Bearer {secret}
monday token api.monday.com /v2 | authorization: {secret}
clickup token api.clickup.com /api/v2/user | authorization: {secret}
figma token api.figma.com /v1/me | x-figma-token: {secret}
figma token api.figma.com /v1/me | authorization: Bearer {secret}
trello query api.trello.com /1/members/me | query key={key} & query token={token}
typeform token api.typeform.com /me | authorization: Bearer {secret}
dropbox token api.dropboxapi.com /2/users/get_current_account | authorization: Bearer {secret}
slack bot-token slack.com /api/auth.test | authorization: Bearer {secret}
slack user-token files.slack.com /files-pri/x | authorization: Bearer {secret}
slack app-token slack.com /api/apps.connections.open | authorization: Bearer {secret}
discord bot-token discord.com /api/v10/users/@me | authorization: Bot {secret}
telegram path api.telegram.org /bot{secret}/getMe | path
telegram path api.telegram.org /file/bot{secret}/photos/a.jpg | path
twilio basic api.twilio.com /2010-04-01/Accounts.json | basic {user}:{secret}
sendgrid api-key api.sendgrid.com /v3/scopes | authorization: Bearer {secret}
resend api-key api.resend.com /domains | authorization: Bearer {secret}
mailgun api-key api.mailgun.net /v3/domains | basic api:{secret}
postmark server-token api.postmarkapp.com /server | x-postmark-server-token: {secret}
postmark account-token api.postmarkapp.com /servers | x-postmark-account-token: {secret}
mailchimp api-key us21.api.mailchimp.com /3.0/ | basic anystring:{secret}
intercom token api.intercom.io /contacts | authorization: Bearer {secret}
zendesk basic tenant.zendesk.com /api/v2/users.json | basic {user}/token:{secret}
stripe api-key api.stripe.com /v1/balance | authorization: Bearer {secret}
stripe api-key api.stripe.com /v1/balance | basic {secret}:
shopify token tenant.myshopify.com /admin/oauth/access_scopes.json | x-shopify-access-token: {secret}
hubspot token api.hubapi.com /crm/v3/objects | authorization: Bearer {secret}
salesforce token tenant.my.salesforce.com /services/data | authorization: Bearer {secret}
algolia api-key tenant.algolia.net /1/indexes | x-algolia-api-key: {secret}
algolia api-key tenant.algolia.net /1/indexes | query x-algolia-api-key={secret}
digitalocean token api.digitalocean.com /v2/account | authorization: Bearer {secret}
supabase-mgmt token api.supabase.com /v1/projects | authorization: Bearer {secret}
supabase api-key tenant.supabase.co /rest/v1/ | apikey: {secret} & authorization: Bearer {secret}
pinecone api-key api.pinecone.io /indexes | api-key: {secret}
neon api-key console.neon.tech /api/v2/users/me | authorization: Bearer {secret}
planetscale service-token api.planetscale.com /v1/organizations | authorization: {secret}
pulumi token api.pulumi.com /api/user | authorization: token {secret}
doppler token api.doppler.com /v3/me | authorization: Bearer {secret}
";

/// Characters that every encoding in use has to escape, without those that a user name cannot hold.
const SECRET: &str = "s3cret+/=canary~0123456789";
const PLACEHOLDER: &str = "keyferry-placeholder";
const JUNK: &str = "junk-of-the-agent";

struct Row<'a> {
    provider: &'a str,
    kind: &'a str,
    host: &'a str,
    path: &'a str,
    slots: Vec<&'a str>,
}

fn rows() -> Vec<Row<'static>> {
    let lines = TABLE.lines().filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (left, slots) = line.split_once(" | ").unwrap();
            let words: Vec<_> = left.split(' ').collect();
            let [provider, kind, host, path] = words[..] else { panic!("{line}") };
            Row { provider, kind, host, path, slots: slots.split(" & ").collect() }
        })
        .collect()
}

impl Row<'_> {
    /// The fields of the value that the row names, each with its text.
    fn fields(&self) -> Vec<(String, String)> {
        let text = format!("{} {}", self.path, self.slots.join(" "));
        let names: BTreeSet<&str> = text.split('{').skip(1).map(|rest| rest.split_once('}').unwrap().0).collect();
        let value = |name: &str| match name {
            "secret" => SECRET.to_owned(),
            "user" => "ann@acme.test".to_owned(),
            other => format!("{SECRET}-{other}"),
        };
        names.into_iter().map(|name| (name.to_owned(), value(name))).collect()
    }

    fn stored(&self) -> String {
        let fields = self.fields();
        let names: Vec<_> = fields.iter().map(|(name, _)| name.as_str()).collect();
        match names[..] {
            ["secret"] => SECRET.to_owned(),
            ["secret", "user"] => format!("ann@acme.test:{SECRET}"),
            _ => serde_json::to_string(&fields.into_iter().collect::<std::collections::BTreeMap<_, _>>()).unwrap(),
        }
    }

    /// The head that a client sends with `fields`, one `name: value` to a line after the target.
    fn head(&self, fields: &[(String, String)]) -> (String, Vec<String>) {
        let fill = |text: &str, escape: &dyn Fn(&str) -> String| {
            fields
                .iter()
                .fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{name}}}"), &escape(value)))
        };
        let mut target = fill(self.path, &|value| value.replace('/', "%2F"));
        let mut query = vec!["a=%2F1".to_owned()];
        let mut lines = Vec::new();
        for slot in &self.slots {
            if let Some(parameter) = slot.strip_prefix("query ") {
                query.push(fill(parameter, &|v| v.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D")));
            } else if let Some(pair) = slot.strip_prefix("basic ") {
                let pair = fill(pair, &str::to_owned);
                lines.push(format!("authorization: Basic {}", STANDARD.encode(pair)));
            } else if *slot != "path" {
                lines.push(fill(slot, &str::to_owned));
            }
        }
        let _ = write!(target, "?{}", query.join("&"));
        lines.sort();
        (target, lines)
    }
}

fn provider(id: &str) -> Arc<Provider> {
    let id = ProviderId::parse(id).unwrap();
    Arc::clone(Catalogue::embedded().provider(&id).unwrap_or_else(|| panic!("no provider {id}")))
}

fn origin(host: &str) -> Origin {
    Origin::from_authority(Scheme::Https, host).unwrap()
}

fn credential(provider: &str, kind: &str, host: &str, value: &str) -> Credential {
    let profile = ProfileId::parse(&format!("{provider}:work")).unwrap();
    let audience = vec![HostPattern::parse(host).unwrap()];
    Credential::new(profile, kind, audience, Arc::new(Secret::from(value.to_owned())), 1)
}

fn request(target: &str, lines: &[String]) -> Parts {
    let mut builder = Request::builder().method("GET").uri(target);
    for line in lines {
        let (name, value) = line.split_once(": ").unwrap();
        builder = builder.header(name, value);
    }
    builder.body(()).unwrap().into_parts().0
}

/// What leaves, but for the fields that every injected request has.
fn sent(injected: Injected) -> (String, Vec<String>) {
    let parts = injected.into_parts();
    let mut lines = Vec::new();
    for (name, value) in &parts.headers {
        if !matches!(name.as_str(), "host" | "accept-encoding" | "anthropic-version" | "anthropic-beta") {
            lines.push(format!("{name}: {}", value.to_str().unwrap()));
        }
    }
    lines.sort();
    (parts.uri.to_string(), lines)
}

#[test]
fn every_kind_at_every_place_has_a_line_in_the_table() {
    let rows = rows();
    for provider in Catalogue::embedded().iter() {
        for kind in &provider.kinds {
            let of_kind = |row: &&Row<'_>| row.provider == provider.id.as_str() && row.kind == kind.id;
            let ways: usize = kind.placements.iter().map(|place| place.ways.len()).sum();
            let lines = rows.iter().filter(of_kind).count();
            assert!(lines >= ways, "{} {}: {ways} ways and {lines} lines", provider.id, kind.id);
        }
    }
}

#[test]
fn exactly_one_credential_leaves_in_the_slot_that_the_client_used() {
    for row in rows() {
        let at = format!("{} {} {} {:?}", row.provider, row.kind, row.path, row.slots);
        let provider = provider(row.provider);
        let fields = row.fields();
        let placeholders: Vec<_> = fields.iter().map(|(name, _)| (name.clone(), PLACEHOLDER.to_owned())).collect();
        let (target, lines) = row.head(&placeholders);
        let parts = request(&target, &lines);
        assert_eq!(presented(&parts, &provider).as_deref(), Some(PLACEHOLDER), "{at}");
        let stripped = strip_for(parts, Some(&provider), true).unwrap();
        assert!(!format!("{stripped:?}").contains(PLACEHOLDER), "{at}");
        assert!(!stripped.shown_path().contains(PLACEHOLDER), "{at}");

        let credential = credential(row.provider, row.kind, row.host, &row.stored());
        let injected = inject_for(&stripped, &provider, &credential, &origin(row.host)).unwrap();
        assert!(!format!("{injected:?} {credential:?}").contains("canary"), "{at}");
        for (name, value) in &fields {
            let known = injected.secrets().iter().any(|secret| secret.matches(value.as_bytes()));
            assert_eq!(known, name != "user" && name != "email", "{at}: {name} is looked for in what comes back");
        }
        assert_eq!(sent(injected), row.head(&fields), "{at}");
    }
}

#[test]
fn what_an_agent_brings_in_other_slots_does_not_leave() {
    // PX-21
    for row in rows() {
        let at = format!("{} {} {} {:?}", row.provider, row.kind, row.path, row.slots);
        let provider = provider(row.provider);
        let fields = row.fields();
        let placeholders: Vec<_> = fields.iter().map(|(name, _)| (name.clone(), PLACEHOLDER.to_owned())).collect();
        let (mut target, mut lines) = row.head(&placeholders);
        let used: Vec<String> = lines.iter().map(|line| line.split_once(": ").unwrap().0.to_owned()).collect();
        for name in &provider.slots.fields {
            let twice = 1 + usize::from(used.contains(&name.to_string()));
            for _ in 0..twice {
                // Beside the used slot a second line of the same name.
                lines.push(format!("{name}: {JUNK}"));
            }
        }
        for name in &provider.slots.queries {
            let _ = write!(target, "&{name}={JUNK}&{}=again-{JUNK}", name.to_ascii_uppercase());
        }
        let stripped = strip_for(request(&target, &lines), Some(&provider), true).unwrap();
        let credential = credential(row.provider, row.kind, row.host, &row.stored());
        let injected = inject_for(&stripped, &provider, &credential, &origin(row.host)).unwrap();
        let (target, lines) = sent(injected);
        let whole = format!("{target} {}", lines.join(" "));
        assert!(!whole.contains(JUNK) && !whole.contains(PLACEHOLDER), "{at}: {whole}");
        let authorizations = lines.iter().filter(|line| line.starts_with("authorization: ")).count();
        assert!(authorizations <= 1, "{at}: {whole}");
        let values: usize =
            fields.iter().filter(|(name, _)| name != "user").map(|(_, value)| occurrences(&whole, value)).sum();
        let slots = row.slots.len();
        assert_eq!(values, slots, "{at}: {whole}");
    }
}

#[test]
fn a_request_without_a_slot_gets_the_first_way() {
    let mut seen = BTreeSet::new();
    for row in rows() {
        let provider = provider(row.provider);
        let kind = provider.kind(row.kind).unwrap();
        let place = kind.placement_at(&origin(row.host), row.path).unwrap().0;
        if row.slots == ["path"] || !seen.insert((row.provider, row.kind, place)) {
            continue;
        }
        let stripped = strip_for(request(&format!("{}?a=%2F1", row.path), &[]), Some(&provider), true).unwrap();
        let credential = credential(row.provider, row.kind, row.host, &row.stored());
        let injected = inject_for(&stripped, &provider, &credential, &origin(row.host)).unwrap();
        assert_eq!(sent(injected), row.head(&row.fields()), "{} {}", row.provider, row.kind);
    }
}

#[test]
fn every_placeholder_has_the_form_of_its_kind_and_is_recognised() {
    let minter = crate::placeholder::Minter::new(&Arc::new(Secret::new(vec![7; 32])));
    let agent = crate::id::AgentName::parse("coder").unwrap();
    let catalogue = Catalogue::embedded();
    let kinds = catalogue.iter().flat_map(|provider| provider.kinds.iter().map(move |kind| (provider, kind)));
    for (provider, kind) in kinds {
        let text = minter.mint(&kind.shape, &agent, &format!("{}:work", provider.id));
        let at = format!("{} {}: {text}", provider.id, kind.id);
        assert!(minter.looks_like_ours(&text), "{at}");
        let whole = kind.form == super::Form::Whole;
        if whole && !kind.looks.is_empty() {
            assert!(kind.fits(&Secret::from(text)), "{at} does not look like a key of its kind");
        }
    }
}

#[test]
fn every_test_call_takes_the_credential_of_its_kind() {
    for provider in Catalogue::embedded().iter() {
        for kind in provider.kinds.iter().filter(|kind| kind.test.is_some()) {
            let test = kind.test.as_ref().unwrap();
            let host = some_host(kind);
            let parts = request(&test.target, &[]);
            let stripped = strip_for(parts, Some(provider), true).unwrap();
            let row =
                rows().into_iter().find(|row| row.provider == provider.id.as_str() && row.kind == kind.id).unwrap();
            let credential = credential(row.provider, row.kind, &host, &row.stored());
            let injected = inject_for(&stripped, provider, &credential, &origin(&host)).unwrap();
            let (target, lines) = sent(injected);
            let whole = format!("{target} {}", lines.join(" "));
            let secrets = row.fields().iter().filter(|(_, value)| occurrences(&whole, value) > 0).count();
            assert!(secrets > 0, "{} {}: {whole}", provider.id, kind.id);
        }
    }
}

fn some_host(kind: &Kind) -> String {
    let pattern = &kind.placements[0].hosts[0];
    pattern.to_string().replace('*', "tenant")
}

/// How often `value` stands in `text`, raw, percent-encoded or in a Basic pair.
fn occurrences(text: &str, value: &str) -> usize {
    let escaped = value.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
    let segment = value.replace('/', "%2F");
    let decoded: String = text
        .split(' ')
        .filter_map(|word| STANDARD.decode(word).ok())
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .collect::<Vec<_>>()
        .join(" ");
    // Another field's value may begin with this one.
    let count = |text: &str, value: &str| {
        text.match_indices(value).filter(|(at, _)| !text[at + value.len()..].starts_with('-')).count()
    };
    count(text, value) + count(text, &escaped) + count(text, &segment) + count(&decoded, value)
}
