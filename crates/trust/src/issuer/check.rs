//! Is an issuer's configuration sound? Every problem at once, each with the key and what to write instead.
//!
//! Never repairs in silence: the only things changed are the case of tenant ids, `consumers`, and what the preset fills.
use super::{LEEWAY_MAX_S, Preset, Settings, SettingsError, dialect, url};

/// Audiences that belong to a Kubernetes API server: a token for it must never be one for us.
pub(crate) const API_SERVER_AUDIENCES: [&str; 5] = [
    "https://kubernetes.default.svc",
    "https://kubernetes.default.svc.cluster.local",
    "kubernetes.default.svc",
    "kubernetes",
    "k3s",
];
/// Claims that a person, or an administrator of another tenant, can change or inherit: never an identity.
const REASSIGNABLE: [&str; 8] =
    ["email", "upn", "preferred_username", "unique_name", "name", "nickname", "username", "cognito:username"];

pub(super) fn normalised(mut settings: Settings) -> Settings {
    let tenant = |text: &mut String| {
        *text = match text.to_ascii_lowercase().as_str() {
            "consumers" => dialect::ENTRA_CONSUMERS.to_owned(),
            lower => lower.to_owned(),
        }
    };
    if settings.preset == Preset::Entra {
        settings.tenant.iter_mut().chain(&mut settings.tenants).for_each(tenant);
    }
    if settings.algorithms.is_empty() {
        settings.algorithms = dialect::of(settings.preset).algorithms.to_vec();
    }
    settings
}

/// Collects problems; one method per way of saying so keeps the rules below readable.
struct Problems(Vec<SettingsError>);

impl Problems {
    fn add(&mut self, field: &'static str, problem: impl Into<String>, fix: impl Into<String>) {
        self.0.push(SettingsError::Field { field, problem: problem.into(), fix: fix.into() });
    }
}

pub(super) fn problems(settings: &Settings) -> Vec<SettingsError> {
    let mut found = Problems(Vec::new());
    name(settings, &mut found);
    issuer(settings, &mut found);
    entra(settings, &mut found);
    cognito(settings, &mut found);
    audience(settings, &mut found);
    lists(settings, &mut found);
    claims(settings, &mut found);
    keys(settings, &mut found);
    found.0
}

fn name(settings: &Settings, found: &mut Problems) {
    let name = &settings.name;
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(fits) {
        found.add(
            "name",
            format!("`{}` is no issuer name", name.escape_debug()),
            "use 1 to 64 of a-z, 0-9, `-`, `_`, `.`; it becomes the first half of every subject",
        );
    }
    if !(0..=LEEWAY_MAX_S).contains(&settings.leeway_s) {
        found.add(
            "leeway",
            format!("{} s is not between 0 and {LEEWAY_MAX_S}", settings.leeway_s),
            "leave it out (60 s) and mend the clocks instead",
        );
    }
    if !settings.accept_typ_jwt && dialect::of(settings.preset).typ_is_jwt {
        found.add(
            "accept_typ_jwt",
            format!("{} marks its access tokens `JWT`, so none would be accepted", settings.preset.name()),
            "leave it out",
        );
    }
}

fn issuer(settings: &Settings, found: &mut Problems) {
    let Some(issuer) = &settings.issuer else {
        let fix = match settings.preset {
            Preset::Okta => "issuer: https://<org>.okta.com/oauth2/<authorization server id>",
            Preset::Auth0 => "issuer: https://<tenant>.auth0.com/ (with the slash at the end)",
            Preset::Keycloak => "issuer: https://<host>/realms/<realm>",
            Preset::Kubernetes => "issuer: what `kubectl get --raw /.well-known/openid-configuration` says",
            Preset::Generic => "issuer: the `issuer` of the provider's /.well-known/openid-configuration",
            Preset::Entra | Preset::Cognito | Preset::Google | Preset::GithubActions => return,
        };
        found.add("issuer", "is missing", fix);
        return;
    };
    if settings.preset == Preset::Google {
        found.add("issuer", "google has one issuer only", "leave `issuer` out");
        return;
    }
    if let Some(problem) = url::problem(issuer) {
        let fix = "copy `issuer` from the provider's /.well-known/openid-configuration, character by character";
        found.add("issuer", format!("`{}` {problem}", issuer.escape_debug()), fix);
        return;
    }
    if settings.preset == Preset::Auth0 && !issuer.ends_with('/') {
        found.add(
            "issuer",
            format!("`{issuer}` does not end with `/`, as every Auth0 issuer does"),
            format!("issuer: {issuer}/"),
        );
    }
    if settings.preset == Preset::Okta && !url::path(issuer).starts_with("/oauth2/") {
        found.add(
            "issuer",
            format!("`{issuer}` is Okta's org authorization server, whose access tokens nobody but Okta can check"),
            format!("use a custom authorization server: issuer: {}/oauth2/default", issuer.trim_end_matches('/')),
        );
    }
}

fn entra(settings: &Settings, found: &mut Problems) {
    if settings.preset != Preset::Entra {
        return tenants_elsewhere(settings, found);
    }
    let guid_fix = "write the directory (tenant) id, a GUID: Entra admin center, Overview";
    for tenant in settings.tenants.iter().filter(|tenant| !dialect::is_guid(tenant)) {
        found.add("tenants", format!("`{}` is no tenant id", tenant.escape_debug()), guid_fix);
    }
    match settings.tenant.as_deref() {
        None => found.add("tenant", "is missing", "tenant: <directory id>, or `organizations` together with `tenants`"),
        Some(all @ ("common" | "organizations")) => {
            if settings.tenants.is_empty() {
                let fix =
                    "tenants: [<directory id>, …]; without the list every Microsoft customer in the world gets in";
                found.add("tenants", format!("is missing, and `tenant: {all}` needs it"), fix);
            }
            if settings.issuer.is_some() {
                found.add("issuer", format!("cannot be fixed together with `tenant: {all}`"), "leave `issuer` out");
            }
            if all == "organizations" && settings.tenants.iter().any(|tenant| tenant == dialect::ENTRA_CONSUMERS) {
                found.add("tenants", "`organizations` never holds personal accounts (`consumers`)", "tenant: common");
            }
        }
        Some(tenant) if !dialect::is_guid(tenant) => {
            found.add("tenant", format!("`{}` is no tenant id", tenant.escape_debug()), guid_fix);
        }
        Some(_) if !settings.tenants.is_empty() => {
            found.add(
                "tenants",
                "needs `tenant: organizations` or `tenant: common`",
                "write one of them, or leave `tenants` out",
            );
        }
        Some(tenant) => entra_issuer(settings, tenant, found),
    }
}

/// GitHub and Google have one issuer for all their customers: there the list names whose tokens we take.
fn tenants_elsewhere(settings: &Settings, found: &mut Problems) {
    if settings.tenant.is_some() {
        found.add("tenant", "only the entra preset has a tenant", "leave `tenant` out");
    }
    for tenant in &settings.tenants {
        let (fits, fix) = match settings.preset {
            Preset::GithubActions => (
                !tenant.is_empty() && tenant.bytes().all(|b| b.is_ascii_digit()),
                "tenants: [<owner id>], a number: `gh api users/<owner> --jq .id`",
            ),
            Preset::Google => (
                tenant.contains('.')
                    && tenant.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-.".contains(&b)),
                "tenants: [<Workspace domain>], e.g. acme.example",
            ),
            _ => (false, "leave `tenants` out: only entra, github-actions and google have them"),
        };
        if !fits {
            found.add(
                "tenants",
                format!("`{}` is no tenant of {}", tenant.escape_debug(), settings.preset.name()),
                fix,
            );
        }
    }
}

/// A fixed issuer (v1 only, v2 only, a national cloud, an external tenant) must still name the tenant it is for.
fn entra_issuer(settings: &Settings, tenant: &str, found: &mut Problems) {
    if let Some(issuer) = settings.issuer.as_ref().filter(|issuer| !issuer.contains(tenant)) {
        found.add(
            "issuer",
            format!("`{}` does not name tenant `{tenant}`", issuer.escape_debug()),
            "leave `issuer` out",
        );
    }
}

fn cognito(settings: &Settings, found: &mut Problems) {
    if settings.preset != Preset::Cognito {
        if settings.pool.is_some() {
            found.add("pool", "only the cognito preset has a pool", "leave `pool` out");
        }
        return;
    }
    let derived = settings.pool.as_deref().and_then(dialect::cognito);
    match (&settings.pool, &derived, &settings.issuer) {
        (None, _, None) => found.add("pool", "is missing", "pool: <region>_<id>, e.g. eu-west-1_AbCdEf"),
        (Some(pool), None, _) => {
            let fix = "pool: <region>_<id>, e.g. eu-west-1_AbCdEf";
            found.add("pool", format!("`{}` is no user pool id", pool.escape_debug()), fix);
        }
        (Some(_), Some(derived), Some(issuer)) if derived != issuer => {
            found.add(
                "issuer",
                format!("`{issuer}` is not the issuer of this pool, `{derived}`"),
                "leave `issuer` out",
            );
        }
        _ => {}
    }
    if settings.clients.is_empty() {
        let fix = "clients: [<app client id>, …]; Cognito's access tokens have no audience, the client is all there is";
        found.add("clients", "is missing", fix);
    }
}

fn audience(settings: &Settings, found: &mut Problems) {
    if settings.audience.is_empty() && settings.preset != Preset::Cognito {
        let fix = match settings.preset {
            Preset::Entra => {
                "audience: [api://<api>, <client id of the API>]; v1 tokens carry the first, v2 the second"
            }
            Preset::GithubActions => "audience: [<a name of your own>], and ask for it in the workflow",
            Preset::Kubernetes => "audience: [<a name of your own>], and project a token for it into the pod",
            Preset::Keycloak => "audience: [<api>], and add an audience mapper to the client in Keycloak",
            Preset::Auth0 => "audience: [<API identifier>]",
            Preset::Okta => "audience: [<audience of the authorization server>], often api://default",
            Preset::Google => "audience: [<the audience that callers ask their identity token for>]",
            Preset::Cognito | Preset::Generic => "audience: [<what the provider puts into `aud` for this API>]",
        };
        found.add("audience", "is missing", fix);
    }
    for audience in &settings.audience {
        let shown = audience.escape_debug();
        if audience.is_empty() || audience.chars().any(|c| c.is_control() || c.is_whitespace()) {
            found.add("audience", format!("`{shown}` is no audience"), "write it exactly as the token's `aud` has it");
        }
        if settings.preset == Preset::GithubActions && audience.starts_with("https://github.com/") {
            let problem =
                format!("`{shown}` is GitHub's default, which any workflow of that owner gets without asking");
            found.add("audience", problem, "audience: [<a name of your own>], and ask for it in the workflow");
        }
        let api_server =
            API_SERVER_AUDIENCES.contains(&audience.as_str()) || settings.issuer.as_ref() == Some(audience);
        if settings.preset == Preset::Kubernetes && api_server {
            let problem = format!("`{shown}` is the API server's audience, which every pod's default token carries");
            found.add("audience", problem, "audience: [<a name of your own>], and project a token for it into the pod");
        }
    }
}

fn lists(settings: &Settings, found: &mut Problems) {
    for (field, list) in [("clients", &settings.clients), ("agents", &settings.agents)] {
        for id in list.iter().filter(|id| id.is_empty() || id.chars().any(|c| c.is_control() || c.is_whitespace())) {
            found.add(field, format!("`{}` is no client id", id.escape_debug()), "write the OAuth client id");
        }
    }
    let clientless = matches!(settings.preset, Preset::GithubActions | Preset::Kubernetes);
    for (field, list) in [("clients", &settings.clients), ("agents", &settings.agents)] {
        if clientless && !list.is_empty() {
            let problem = format!("tokens of {} name no OAuth client", settings.preset.name());
            found.add(field, problem, format!("leave `{field}` out and name the workload in the rules"));
        }
    }
}

fn claims(settings: &Settings, found: &mut Problems) {
    let paths = &settings.claims;
    let named = [
        ("claims.id", &paths.id),
        ("claims.groups", &paths.groups),
        ("claims.roles", &paths.roles),
        ("claims.scopes", &paths.scopes),
        ("claims.client", &paths.client),
    ];
    for (field, path) in named {
        let Some(path) = path else { continue };
        if path.is_empty() || path.len() > 8 || path.iter().any(String::is_empty) {
            let fix = "write `a.b` for claim b within claim a, or a list of 1 to 8 names taken literally";
            found.add(field, "is no path to a claim", fix);
        }
    }
    let last = paths.id.as_ref().and_then(|path| path.last());
    if let Some(claim) = last.filter(|claim| REASSIGNABLE.contains(&claim.to_ascii_lowercase().as_str())) {
        let problem = format!("`{claim}` can be changed or given to somebody else, so it is no identity");
        found.add("claims.id", problem, "leave it out: the preset knows the stable id (`sub`, Entra `tid` and `oid`)");
    }
    if paths.id.is_some() && matches!(settings.preset, Preset::Entra | Preset::GithubActions | Preset::Kubernetes) {
        let problem = format!("the id of {} is fixed", settings.preset.name());
        found.add("claims.id", problem, "leave it out");
    }
}

fn keys(settings: &Settings, found: &mut Problems) {
    if settings.jwks_uri.is_some() && settings.jwks_file.is_some() {
        found.add("jwks_file", "stands beside `jwks_uri`", "keep one of the two");
    }
    if let Some((uri, problem)) = settings.jwks_uri.as_ref().and_then(|uri| Some((uri, url::fetch_problem(uri)?))) {
        found.add(
            "jwks_uri",
            format!("`{}` {problem}", uri.escape_debug()),
            "write the https URL of the key set, or leave it out",
        );
    }
}
