//! Loads a platform file and every service file it names. Either everything is good and a [`Loaded`] comes out, or every
//! problem does; there is no half-loaded state, so a bad reload changes nothing.
use super::decode::{Decode, Decoder};
use super::files::{Files, ReadError, glob};
use super::platform::PlatformFile;
use super::problem::{Problem, Problems, Source, lines};
use super::rules::{self, Building, Platform};
use super::settings::{Context, Process};
use super::yaml::{self, Node};
use super::{Loaded, issuer, settings};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const SERVICES_MAX: usize = 2_000;

/// What `tests:` that fail mean for this load.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailingTests {
    /// They stop it: for `run`, for a reload, for `check`.
    AreProblems,
    /// They are left to the caller, who runs and shows them: for `test`.
    AreLeft,
}

/// Loads for running: `tests:` must hold.
pub fn load(path: &Path, files: &dyn Files) -> Result<Loaded, Problems> {
    load_with(path, files, FailingTests::AreProblems)
}

pub fn load_with(path: &Path, files: &dyn Files, failing: FailingTests) -> Result<Loaded, Problems> {
    let mut loader = Loader { files, problems: Vec::new(), watched: Vec::new() };
    let loaded = loader.load(path, failing);
    if loaded.is_none() && !loader.problems.iter().any(Problem::is_error) {
        // No part fails without saying why; should one ever, the load must still not pass for good.
        let what = "the configuration could not be built, and no part said why";
        loader.problems.push(Problem::of_file(
            &path.display().to_string(),
            what,
            "this is a mistake of countersign: report it",
        ));
    }
    let problems = Problems::new(loader.problems);
    match loaded {
        Some(loaded) if problems.errors() == 0 => Ok(Loaded { warnings: problems, ..loaded }),
        _ => Err(problems),
    }
}

struct Loader<'a> {
    files: &'a dyn Files,
    problems: Vec<Problem>,
    watched: Vec<PathBuf>,
}

impl Loader<'_> {
    fn load(&mut self, path: &Path, failing: FailingTests) -> Option<Loaded> {
        let base = path.parent().unwrap_or(Path::new(""));
        let source = self.source(path, base)?;
        let node = yaml::parse(&source, &mut self.problems)?;
        let file = PlatformFile::decode(&node, &mut Decoder { source: &source, problems: &mut self.problems })?;
        let trust_domain = self.trust_domain(&file, &source);
        let mut context = self.context(&source, base);
        let process = settings::process(&file, node.at, &mut context);
        let issuers = issuer::profiles(&file, &mut context);
        let introspection = issuer::introspection(&file, &mut context);
        let graph = issuer::graph(&file, &mut context);
        if issuers.is_empty() && file.issuers.as_ref().is_none_or(|named| named.0.is_empty()) {
            let what = "no `issuers`: no token will be accepted, so only rules for `anyone` can match";
            let fix = "add `issuers:` with your OpenID provider";
            self.problems.push(source.problem(node.at, what, fix).warning());
        }
        let paths = self.service_paths(&file, &source, base);
        let all_good = file.issuers.as_ref().is_none_or(|named| named.0.len() == issuers.len());
        let platform = Platform {
            trust_domain: &trust_domain,
            issuers: all_good.then_some(issuers.as_slice()),
            failing,
            others_forward: file.authz.is_some() || file.token_endpoint.is_some(),
        };
        let built = self.services(&paths, base, &platform);
        let desired = |services| feed::Desired { trust_domain, issuers, services, introspection, graph };
        self.loaded(process, desired, built)
    }

    fn loaded(
        &mut self,
        process: Process,
        desired: impl FnOnce(Vec<Arc<feed::Service>>) -> feed::Desired,
        built: Vec<Building>,
    ) -> Option<Loaded> {
        let mut sources = Vec::with_capacity(built.len());
        let mut services = Vec::with_capacity(built.len());
        for Building { service, rules, .. } in built {
            services.push(Arc::new(service?));
            sources.push(rules);
        }
        self.watched.sort();
        self.watched.dedup();
        Some(Loaded {
            desired: desired(services),
            edge: process.edge?,
            authz: process.authz?,
            token_endpoint: process.token_endpoint?,
            admin: process.admin,
            audit: process.audit,
            access_log: process.access_log,
            telemetry: process.telemetry,
            log: process.log,
            state: process.state,
            sources,
            watched: std::mem::take(&mut self.watched),
            warnings: Problems::default(),
        })
    }

    fn context<'s>(&'s mut self, source: &'s Source, base: &'s Path) -> Context<'s, 's> {
        Context {
            files: self.files,
            base,
            watched: &mut self.watched,
            to: Decoder { source, problems: &mut self.problems },
        }
    }

    /// Reads one configuration file as text.
    fn source(&mut self, path: &Path, base: &Path) -> Option<Source> {
        let shown = path.display().to_string();
        let place = path.strip_prefix(base).unwrap_or(path).display().to_string();
        self.watched.push(path.to_owned());
        let contents = match self.files.read(path, yaml::BYTES_MAX) {
            Ok(contents) => contents,
            Err(error) => {
                let fix = match error {
                    ReadError::Missing => "name an existing file with `-c FILE`; `countersign dev` runs without one",
                    _ => "let the user that runs countersign read it, as a regular file",
                };
                self.problems.push(Problem::of_file(&shown, format!("the file cannot be read: {error}"), fix));
                return None;
            }
        };
        if contents.world_writable() {
            let what = "every user of this machine can change this file, and with it who is let in";
            self.problems.push(Problem::of_file(&shown, what, format!("chmod o-w {shown}")));
        }
        match yaml::text(contents.bytes, &shown) {
            Ok(text) if lines(&text).all(|line| line.trim().is_empty() || line.trim_start().starts_with('#')) => {
                let fix = "see examples/quickstart for a file to start from";
                self.problems.push(Problem::of_file(&shown, "the file is empty", fix));
                None
            }
            Ok(text) => Some(Source { shown, place, text }),
            Err(problem) => {
                self.problems.push(problem);
                None
            }
        }
    }

    fn trust_domain(&mut self, file: &PlatformFile, source: &Source) -> Arc<str> {
        let Some(named) = &file.trust_domain.0 else { return Arc::from("invalid") };
        if let Err(error) = trust::spiffe::check_trust_domain(&named.value) {
            let what = format!("`{}` is no trust domain: {error}", named.value);
            self.problems.push(source.problem(named.at, what, "a name you own, in lower case, e.g. `acme.example`"));
        }
        named.value.as_str().into()
    }

    fn service_paths(&mut self, file: &PlatformFile, source: &Source, base: &Path) -> Vec<PathBuf> {
        let mut paths = Vec::new();
        for pattern in file.services.0.iter().flat_map(|many| &many.0) {
            match glob(self.files, base, &pattern.value) {
                Ok(mut found) => {
                    if found.files.is_empty() {
                        let what = format!("`{}` matches no file: nothing will be served", pattern.value);
                        let fix = "add a service file there, or correct the pattern; it is relative to this file";
                        self.problems.push(source.problem(pattern.at, what, fix).warning());
                    }
                    self.watched.append(&mut found.folders);
                    paths.append(&mut found.files);
                }
                Err(error) => {
                    let what = format!("`{}` cannot be searched: {error}", pattern.value);
                    self.problems.push(source.problem(pattern.at, what, "let the user that runs countersign list it"));
                }
            }
        }
        paths.sort();
        paths.dedup();
        if paths.len() > SERVICES_MAX {
            let what = format!("{} service files; at most {SERVICES_MAX} are read", paths.len());
            self.problems.push(Problem::of_file(&source.shown, what, "narrow `services:`"));
            paths.truncate(SERVICES_MAX);
        }
        paths
    }

    fn services(&mut self, paths: &[PathBuf], base: &Path, platform: &Platform<'_>) -> Vec<Building> {
        let mut built: Vec<Building> = Vec::new();
        let mut names: BTreeMap<String, String> = BTreeMap::new();
        let mut places: BTreeMap<(String, String), String> = BTreeMap::new();
        for path in paths {
            let Some((source, node)) = self.parsed(path, base) else { continue };
            let mut context = self.context(&source, base);
            let Some(one) = rules::build(&node, platform, &mut context) else { continue };
            if let Some((name, at)) = &one.name
                && let Some(earlier) = names.insert(name.clone(), source.shown.clone())
            {
                let what = format!("service `{name}` is also defined in {earlier}");
                context.to.report(*at, what, "give one of them another name, or remove it");
            }
            for (host, path, at) in &one.places {
                let owner = one.name.as_ref().map_or(source.shown.clone(), |(name, _)| format!("service `{name}`"));
                if let Some(earlier) = places.insert((host.clone(), path.clone()), owner) {
                    let what = format!("`{host}{path}` is already exposed by {earlier}");
                    context.to.report(*at, what, "expose each host and path once, so that one service answers");
                }
            }
            built.push(one);
        }
        built
    }

    fn parsed(&mut self, path: &Path, base: &Path) -> Option<(Source, Node)> {
        let source = self.source(path, base)?;
        let node = yaml::parse(&source, &mut self.problems)?;
        Some((source, node))
    }
}
