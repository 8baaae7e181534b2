//! Who sent it: services, versions, resources.
//!
//! A resource's bytes are read once; equal bytes later find the same [`Source`]. The cache is
//! bounded by two generations: when the young one is full, by number or by bytes, it becomes
//! the old one, and what is found in the old one moves back to the young one.
//!
//! Policy:
//! - `service.version` missing: the telemetry is taken, without the label, and counted as
//!   having no artifact identity.
//! - `deployment.environment` is read where `deployment.environment.name` is missing.
//! - A service with more versions, environments and digests than its limit: further ones are
//!   taken under the version `other`, and counted as folded.
//! - An instance is named by `service.instance.id`, else by `k8s.pod.name`, else by `host.name`.
//!   A version with more instances than its limit: further ones are the instance `other`, as are
//!   resources without a name beside others that have one. One not seen for long frees its place.
//! - A digest comes from `container.image.repo_digests` (the part behind `@`) or
//!   `oci.manifest.digest`. `container.image.id` counts as artifact identity, but it is the
//!   digest of the image's configuration, not of its manifest, so it names no artifact.

use std::hash::BuildHasher;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicUsize, Ordering};
use std::sync::{Arc, LazyLock};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};
use parking_lot::Mutex;
use slogate_series::Labels;
use slogate_wire::WireError;
use slogate_wire::otlp::{AnyValue, Resource};
use smallvec::SmallVec;

use crate::model::{Digest, ObservedVersion, Target};

use super::cells::Cell;
use super::metrics::{MetricTable, ResourceLabels};
use super::outcome::{Reason, Signal};

/// The label value that stands for everything over a budget.
pub(super) const OTHER: &str = "other";

/// Longest value taken from a resource or span into a label, in bytes; longer ones are cut.
pub(super) const VALUE_MAX_BYTES: usize = 512;

/// Bytes of resources in one generation of those remembered.
const GENERATION_MAX_BYTES: usize = 32 << 20;

/// A service and what it has used of its budgets.
#[derive(Debug)]
pub(super) struct Service {
    pub(super) name: Arc<str>,
    pub(super) span_cells: AtomicUsize,
    pub(super) edge_cells: AtomicUsize,
    pub(super) instance_cells: AtomicUsize,
    pub(super) metric_series: AtomicUsize,
    identities: AtomicUsize,
}

/// One version of a service in one environment.
#[derive(Debug)]
pub(super) struct Identity {
    pub(super) service: Arc<Service>,
    pub(super) version: Option<Arc<str>>,
    pub(super) environment: Option<Arc<str>>,
    pub(super) digest: Option<Arc<str>>,
    /// Whether the version was folded to [`OTHER`].
    pub(super) folded: bool,
    hasher: DefaultHashBuilder,
    first_seen_ms: AtomicI64,
    last_seen_ms: AtomicI64,
    seen: AtomicBool,
    /// Accumulators found by (kind, status, name), so that labels are built once.
    pub(super) spans: Mutex<HashTable<SpanCell>>,
    /// By name; [`OTHER`] stands for those over the limit.
    instances: Mutex<HashMap<Arc<str>, Arc<Instance>>>,
}

/// Accumulators with the kind and status that each is for.
type InstanceCells = SmallVec<[(u8, u8, Arc<Cell>); 2]>;

/// One instance of a version.
#[derive(Debug)]
pub(super) struct Instance {
    pub(super) name: Arc<str>,
    seen_ms: AtomicI64,
    /// Its accumulators by kind and status: there are few.
    pub(super) cells: Mutex<InstanceCells>,
}

/// An entry of [`Identity::spans`].
#[derive(Debug)]
pub(super) struct SpanCell {
    pub(super) hash: u64,
    pub(super) kind: u8,
    pub(super) status: u8,
    pub(super) name: Arc<str>,
    pub(super) cell: Arc<Cell>,
}

/// A resource that was read.
#[derive(Debug)]
pub(super) struct Source {
    raw: Box<[u8]>,
    /// `None` for a resource without `service.name`.
    pub(super) identity: Option<Arc<Identity>>,
    /// `None` for a resource that names no instance.
    pub(super) instance: Option<Arc<Instance>>,
    /// Who pays for the source's metric series: its service, or one account for all resources
    /// without one.
    pub(super) account: Arc<Service>,
    has_artifact: bool,
    pub(super) labels: ResourceLabels,
    pub(super) metrics: Mutex<MetricTable>,
    seen_ms: AtomicI64,
    coverage: Mutex<[Option<Arc<Cell>>; 3]>,
}

/// All services, versions and resources known.
#[derive(Debug)]
pub(super) struct Directory {
    hasher: DefaultHashBuilder,
    limits: Limits,
    services: Mutex<HashMap<Arc<str>, Arc<Service>>>,
    /// Who pays for remote-written series that name no service.
    jobs: Mutex<HashMap<Arc<str>, Arc<Service>>>,
    identities: Mutex<HashMap<IdentityKey, Arc<Identity>>>,
    sources: Mutex<Generations>,
    nameless: Arc<Service>,
}

/// Whose a remote-written series is.
#[derive(Debug)]
pub(super) struct Account {
    /// Who pays for it.
    pub(super) payer: Arc<Service>,
    /// Whether that is a service, and not a job.
    pub(super) is_service: bool,
    /// The version that the series tells of.
    pub(super) identity: Option<Arc<Identity>>,
}

/// What a [`Directory`] holds at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    pub(super) services: usize,
    pub(super) versions_per_service: usize,
    pub(super) instances_per_version: usize,
    pub(super) sources: usize,
}

type IdentityKey = (
    Arc<str>,
    Option<Arc<str>>,
    Option<Arc<str>>,
    Option<Arc<str>>,
);

#[derive(Debug, Default)]
struct Generations {
    young_bytes: usize,
    young: HashTable<(u64, Arc<Source>)>,
    old: HashTable<(u64, Arc<Source>)>,
}

impl Service {
    fn new(name: Arc<str>) -> Self {
        Service {
            name,
            span_cells: AtomicUsize::new(0),
            edge_cells: AtomicUsize::new(0),
            instance_cells: AtomicUsize::new(0),
            metric_series: AtomicUsize::new(0),
            identities: AtomicUsize::new(0),
        }
    }
}

impl Identity {
    /// The hash under which [`Identity::spans`] keeps an operation.
    pub(super) fn span_hash(&self, kind: u8, status: u8, name: &str) -> u64 {
        self.hasher.hash_one((kind, status, name))
    }

    /// The instance called `name`, made where `limit` allows; else the one for all others.
    fn instance(&self, name: &Arc<str>, limit: usize, now_ms: i64) -> Arc<Instance> {
        let mut instances = self.instances.lock();
        if let Some(instance) = instances.get(name) {
            return instance.clone();
        }
        let own = instances.keys().filter(|known| ***known != *OTHER).count();
        let name = if own < limit {
            name.clone()
        } else {
            word(OTHER)
        };
        let new = || Arc::new(Instance::new(name.clone(), now_ms));
        instances.entry(name.clone()).or_insert_with(new).clone()
    }

    /// The instance that stands for all that have no place or no name of their own; `None` where
    /// no instance has a name.
    pub(super) fn other_instance(&self, now_ms: i64) -> Option<Arc<Instance>> {
        let mut instances = self.instances.lock();
        if instances.is_empty() {
            return None;
        }
        let new = || Arc::new(Instance::new(word(OTHER), now_ms));
        let other = instances.entry(word(OTHER)).or_insert_with(new);
        other.seen_ms.fetch_max(now_ms, Ordering::Relaxed);
        Some(other.clone())
    }

    pub(super) fn touch(&self, now_ms: i64) {
        self.last_seen_ms.fetch_max(now_ms, Ordering::Relaxed);
        self.seen.store(true, Ordering::Release);
    }

    pub(super) fn last_seen_ms(&self) -> i64 {
        self.last_seen_ms.load(Ordering::Relaxed)
    }
}

impl Instance {
    fn new(name: Arc<str>, now_ms: i64) -> Self {
        Instance {
            name,
            seen_ms: AtomicI64::new(now_ms),
            cells: Mutex::default(),
        }
    }
}

impl Directory {
    pub(super) fn new(limits: Limits) -> Self {
        Directory {
            hasher: DefaultHashBuilder::default(),
            limits,
            services: Mutex::default(),
            jobs: Mutex::default(),
            identities: Mutex::default(),
            sources: Mutex::default(),
            nameless: Arc::new(Service::new("".into())),
        }
    }

    /// The source behind a resource's bytes.
    pub(super) fn source(
        &self,
        resource: &Resource<'_>,
        now_ms: i64,
    ) -> Result<Result<Arc<Source>, Reason>, WireError> {
        let raw = resource.raw();
        let hash = self.hasher.hash_one(raw);
        if let Some(source) = self.sources.lock().get(hash, raw, self.limits.sources) {
            source.touch(now_ms);
            return Ok(Ok(source));
        }
        let facts = Facts::read(resource)?;
        let identity = match facts.service.clone() {
            None => None,
            Some(service) => match self.identity(&service, &facts, now_ms) {
                Ok(identity) => Some(identity),
                Err(reason) => return Ok(Err(reason)),
            },
        };
        let account = identity.as_ref().map(|identity| identity.service.clone());
        let limit = self.limits.instances_per_version;
        let named = identity.as_ref().zip(facts.instance.as_ref());
        let named = named.filter(|(identity, _)| limit > 0 && !identity.folded);
        let instance = named.map(|(identity, name)| identity.instance(name, limit, now_ms));
        let source = Arc::new(Source {
            raw: raw.into(),
            account: account.unwrap_or_else(|| self.nameless.clone()),
            has_artifact: facts.has_artifact,
            labels: ResourceLabels::read(resource)?,
            identity,
            instance,
            metrics: Mutex::default(),
            seen_ms: AtomicI64::new(now_ms),
            coverage: Mutex::default(),
        });
        source.touch(now_ms);
        let mut sources = self.sources.lock();
        // Another request may have been faster; both must use one table of metrics.
        if let Some(known) = sources.get(hash, raw, self.limits.sources) {
            return Ok(Ok(known));
        }
        sources.put(hash, source.clone(), self.limits.sources);
        Ok(Ok(source))
    }

    /// The service called `name`, made where the limit allows.
    pub(super) fn service(&self, name: &str) -> Result<Arc<Service>, Reason> {
        let mut services = self.services.lock();
        if let Some(service) = services.get(name) {
            return Ok(service.clone());
        }
        if services.len() >= self.limits.services {
            return Err(Reason::ServiceLimit);
        }
        let name: Arc<str> = name.into();
        let service = Arc::new(Service::new(name.clone()));
        services.insert(name, service.clone());
        Ok(service)
    }

    /// Whose the series with these labels is: its service's, else its job's, else everybody's.
    pub(super) fn account(&self, labels: &Labels, now_ms: i64) -> Result<Account, Reason> {
        let text = |name: &str| labels.get(name).and_then(label_text);
        let Some(service) = text("service_name") else {
            let payer = text("job").and_then(|job| self.job(job));
            return Ok(Account {
                payer: payer.unwrap_or_else(|| self.nameless.clone()),
                is_service: false,
                identity: None,
            });
        };
        let facts = Facts {
            version: text("service_version"),
            environment: text("deployment_environment_name")
                .or_else(|| text("deployment_environment")),
            digest: text("oci_manifest_digest"),
            ..Facts::default()
        };
        let identity = match facts.version {
            Some(_) => Some(self.identity(&service, &facts, now_ms)?),
            None => None,
        };
        Ok(Account {
            payer: self.service(&service)?,
            is_service: true,
            identity,
        })
    }

    /// The job called `name`, made where the limit allows.
    fn job(&self, name: Arc<str>) -> Option<Arc<Service>> {
        let mut jobs = self.jobs.lock();
        if let Some(job) = jobs.get(&name) {
            return Some(job.clone());
        }
        if jobs.len() >= self.limits.services {
            return None;
        }
        let job = Arc::new(Service::new(name.clone()));
        jobs.insert(name, job.clone());
        Some(job)
    }

    fn identity(&self, service: &str, facts: &Facts, now_ms: i64) -> Result<Arc<Identity>, Reason> {
        let service = self.service(service)?;
        let mut key = (
            service.name.clone(),
            facts.version.clone(),
            facts.environment.clone(),
            facts.digest.clone(),
        );
        let mut identities = self.identities.lock();
        if let Some(identity) = identities.get(&key) {
            return Ok(identity.clone());
        }
        let folded = service.identities.load(Ordering::Relaxed) >= self.limits.versions_per_service;
        if folded {
            key = (key.0, Some(OTHER.into()), None, None);
            if let Some(identity) = identities.get(&key) {
                return Ok(identity.clone());
            }
        }
        service.identities.fetch_add(1, Ordering::Relaxed);
        let identity = Arc::new(Identity {
            service,
            version: key.1.clone(),
            environment: key.2.clone(),
            digest: key.3.clone(),
            folded,
            hasher: self.hasher.clone(),
            first_seen_ms: AtomicI64::new(now_ms),
            last_seen_ms: AtomicI64::new(now_ms),
            seen: AtomicBool::new(false),
            spans: Mutex::default(),
            instances: Mutex::default(),
        });
        identities.insert(key, identity.clone());
        Ok(identity)
    }

    /// The versions seen since the last call, sorted.
    pub(super) fn take_observed(&self) -> Vec<ObservedVersion> {
        let mut observed: Vec<_> = self
            .identities
            .lock()
            .values()
            .filter(|identity| !identity.folded)
            .filter(|identity| identity.version.is_some())
            .filter(|identity| identity.seen.swap(false, Ordering::AcqRel))
            .filter_map(|identity| {
                let environment = identity.environment.as_deref().unwrap_or_default();
                let digest = identity.digest.as_deref();
                Some(ObservedVersion {
                    target: Target::new(&*identity.service.name, environment),
                    version: identity.version.as_deref()?.to_owned(),
                    // An image id that is no digest names nothing that a registry knows.
                    digest: digest.and_then(|text| Digest::parse(text).ok()),
                    first_seen_ms: identity.first_seen_ms.load(Ordering::Relaxed),
                    last_seen_ms: identity.last_seen_ms(),
                })
            })
            .collect();
        observed.sort_by(|a, b| {
            (&a.target, &a.version, &a.digest).cmp(&(&b.target, &b.version, &b.digest))
        });
        observed
    }

    /// Forgets what was not seen since `before_ms`, and each known source's idle series. Returns
    /// whether versions were among it.
    pub(super) fn forget(&self, before_ms: i64) -> bool {
        let sources = self.sources.lock().all();
        for source in &sources {
            let mut metrics = source.metrics.lock();
            let dropped = metrics.forget(before_ms);
            release(&source.account, dropped);
        }
        let seen_lately = |source: &Source| source.seen_ms.load(Ordering::Relaxed) >= before_ms;
        self.sources.lock().retain(seen_lately);
        let mut identities = self.identities.lock();
        // Versions not told to `take_observed` yet are kept until they are.
        let known = identities.len();
        identities.retain(|_, identity| {
            let keep = identity.last_seen_ms() >= before_ms;
            let mut instances = identity.instances.lock();
            instances.retain(|_, one| one.seen_ms.load(Ordering::Relaxed) >= before_ms);
            if !keep {
                instances.clear();
                identity.spans.lock().clear();
                identity.service.identities.fetch_sub(1, Ordering::Relaxed);
            }
            keep
        });
        let forgot_versions = identities.len() < known;
        self.services.lock().retain(|_, service| {
            service.identities.load(Ordering::Relaxed) > 0
                || service.span_cells.load(Ordering::Relaxed) > 0
                || service.edge_cells.load(Ordering::Relaxed) > 0
                || service.instance_cells.load(Ordering::Relaxed) > 0
                || service.metric_series.load(Ordering::Relaxed) > 0
        });
        self.jobs
            .lock()
            .retain(|_, job| job.metric_series.load(Ordering::Relaxed) > 0);
        forgot_versions
    }

    /// Drops every known metric series, so that each is looked up in the store again.
    pub(super) fn forget_series(&self) {
        for source in self.sources.lock().all() {
            release(&source.account, source.metrics.lock().forget(i64::MAX));
        }
    }

    /// Resources, services and metric series known.
    pub(super) fn sizes(&self) -> (u64, u64, u64) {
        let sources = self.sources.lock().all();
        let series: usize = sources.iter().map(|s| s.metrics.lock().series()).sum();
        let services = self.services.lock().len();
        (sources.len() as u64, services as u64, series as u64)
    }
}

/// Gives series back to the budget.
fn release(account: &Service, series: usize) {
    account.metric_series.fetch_sub(series, Ordering::Relaxed);
}

impl Source {
    /// The cell that counts this source's items of `signal`; `make` is told whether they carry
    /// an artifact identity, as a label value.
    pub(super) fn coverage_cell(
        &self,
        signal: Signal,
        make: impl FnOnce(&'static str) -> Arc<Cell>,
    ) -> Arc<Cell> {
        let slot = &mut self.coverage.lock()[signal as usize];
        match slot {
            Some(cell) if !cell.is_retired() => cell.clone(),
            _ => {
                let cell = make(self.artifact_label());
                *slot = Some(cell.clone());
                cell
            }
        }
    }

    /// Whether the source's items carry an artifact identity, as a label value.
    pub(super) fn artifact_label(&self) -> &'static str {
        if self.has_artifact { "true" } else { "false" }
    }

    fn touch(&self, now_ms: i64) {
        self.seen_ms.fetch_max(now_ms, Ordering::Relaxed);
        if let Some(identity) = &self.identity {
            identity.touch(now_ms);
        }
        if let Some(instance) = &self.instance {
            instance.seen_ms.fetch_max(now_ms, Ordering::Relaxed);
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        release(&self.account, self.metrics.get_mut().series());
    }
}

impl Generations {
    fn get(&mut self, hash: u64, raw: &[u8], limit: usize) -> Option<Arc<Source>> {
        let same = |(_, source): &(u64, Arc<Source>)| *source.raw == *raw;
        if let Some((_, source)) = self.young.find(hash, same) {
            return Some(source.clone());
        }
        let (entry, _) = self.old.find_entry(hash, same).ok()?.remove();
        self.put(hash, entry.1.clone(), limit);
        Some(entry.1)
    }

    fn put(&mut self, hash: u64, source: Arc<Source>, limit: usize) {
        let full = self.young.len() >= (limit / 2).max(1);
        if full || self.young_bytes > GENERATION_MAX_BYTES {
            self.young_bytes = 0;
            self.old = std::mem::take(&mut self.young);
        }
        self.young_bytes += source.raw.len();
        self.young
            .insert_unique(hash, (hash, source), |(hash, _)| *hash);
    }

    fn all(&self) -> Vec<Arc<Source>> {
        let entries = self.young.iter().chain(self.old.iter());
        entries.map(|(_, source)| source.clone()).collect()
    }

    fn retain(&mut self, mut keep: impl FnMut(&Source) -> bool) {
        self.young.retain(|(_, source)| keep(source));
        self.old.retain(|(_, source)| keep(source));
    }
}

/// What a resource says about who it is.
#[derive(Debug, Default)]
struct Facts {
    service: Option<Arc<str>>,
    version: Option<Arc<str>>,
    environment: Option<Arc<str>>,
    digest: Option<Arc<str>>,
    instance: Option<Arc<str>>,
    has_artifact: bool,
}

impl Facts {
    fn read(resource: &Resource<'_>) -> Result<Self, WireError> {
        let mut facts = Facts::default();
        let (mut old_environment, mut pod, mut host) = (None, None, None);
        for attribute in resource.attributes() {
            let attribute = attribute?;
            let text = attribute.value.as_str().and_then(label_text);
            match attribute.key {
                "service.name" => facts.service = text,
                "service.version" => facts.version = text,
                "deployment.environment.name" => facts.environment = text,
                "deployment.environment" => old_environment = text,
                "service.instance.id" => facts.instance = text,
                "k8s.pod.name" => pod = text,
                "host.name" => host = text,
                "container.image.repo_digests" => {
                    if let Some(digest) = first_digest(&attribute.value)? {
                        facts.digest = Some(digest);
                    }
                }
                "oci.manifest.digest" => facts.digest = facts.digest.or(text),
                "container.image.id" => facts.has_artifact |= text.is_some(),
                _ => {}
            }
        }
        facts.environment = facts.environment.or(old_environment);
        facts.instance = facts.instance.or(pod).or(host);
        facts.has_artifact |= facts.version.is_some() || facts.digest.is_some();
        Ok(facts)
    }
}

fn first_digest(value: &AnyValue<'_>) -> Result<Option<Arc<str>>, WireError> {
    let behind_at = |text: &str| {
        let digest = text.rsplit_once('@').map_or(text, |(_, digest)| digest);
        digest.contains(':').then(|| label_text(digest)).flatten()
    };
    match value {
        AnyValue::String(text) => Ok(behind_at(text)),
        AnyValue::Array(elements) => {
            for element in elements.values() {
                if let Some(digest) = element?.as_str().and_then(behind_at) {
                    return Ok(Some(digest));
                }
            }
            Ok(None)
        }
        _ => Ok(None),
    }
}

/// `text` as a label value: nothing for the empty text, cut where it is too long.
pub(super) fn label_text(text: &str) -> Option<Arc<str>> {
    (!text.is_empty()).then(|| cut(text).into())
}

/// At most [`VALUE_MAX_BYTES`] of `text`, ending between characters.
pub(super) fn cut(text: &str) -> &str {
    if text.len() <= VALUE_MAX_BYTES {
        return text;
    }
    &text[..text.floor_char_boundary(VALUE_MAX_BYTES)]
}

/// Labels from pairs of which some are absent.
pub(super) fn labels_of(
    pairs: impl IntoIterator<Item = (&'static str, Option<Arc<str>>)>,
) -> Labels {
    let present = pairs
        .into_iter()
        .filter_map(|(name, value)| value.map(|value| (word(name), value)));
    Labels::from_pairs(present)
}

/// One of the words that labels are made of, shared: accumulators repeat them by the thousand.
pub(super) fn word(text: &'static str) -> Arc<str> {
    static WORDS: LazyLock<Mutex<HashMap<&'static str, Arc<str>>>> = LazyLock::new(Mutex::default);
    let mut words = WORDS.lock();
    words.entry(text).or_insert_with(|| text.into()).clone()
}
