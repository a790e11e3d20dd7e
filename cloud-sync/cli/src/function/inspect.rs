//! `edgectl fn inspect`: what is in a function, and what a gateway would say to it.

use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

use agent_functions::IMPORTS;
use function_abi::NAMESPACE;
use function_package::{Limits, Manifest, Package, Partition, Trigger};
use serde::Serialize;
use wasmparser::{Parser, Payload, TypeRef};

use crate::args;
use crate::failure::Failure;
use crate::files::Built;
use crate::local::{Local, SEED, Setting};
use crate::out::{Out, Paint, plain};
use crate::source::Source;

#[derive(Serialize)]
struct Inspected<'a> {
    #[serde(flatten)]
    built: Built<'a>,
    description: Option<&'a str>,
    triggers: Vec<String>,
    partition: &'static str,
    streams: &'a [String],
    publish: &'a [String],
    queues: &'a [String],
    secrets: &'a [String],
    twin: &'a [String],
    metrics: &'a [String],
    blobs: Vec<String>,
    blobs_read: Vec<String>,
    /// How often it is given an event on which it fails.
    tries: u32,
    config: BTreeMap<&'a str, String>,
    limits: ShownLimits,
    #[serde(flatten)]
    module: Anatomy,
    /// Whether a gateway would load it.
    loads: bool,
    /// Why it would not.
    refusal: Option<String>,
}

#[derive(Serialize)]
struct ShownLimits {
    fuel: u64,
    memory_kib: u32,
    effects: u32,
    output_kib: u32,
    state_value_kib: u32,
    state_kib: u32,
}

/// What a module is made of, as far as it can be read.
#[derive(Default, Serialize)]
struct Anatomy {
    sections: Vec<Section>,
    imports: Vec<Import>,
    exports: Vec<String>,
    /// Bytes of memory that it begins with.
    memory_bytes: u64,
}

#[derive(Serialize)]
struct Section {
    name: String,
    bytes: usize,
}

#[derive(Serialize)]
struct Import {
    module: String,
    name: String,
    /// Whether the contract has a function of this name.
    known: bool,
}

pub(crate) fn inspect(out: &Out, inspect: &args::Inspect) -> Result<(), Failure> {
    let package = Source::new(&inspect.file, inspect.install_target).package()?;
    let began = Instant::now();
    let refusal = Local::load(&package, Setting::default(), SEED).err().map(|failure| failure.to_string());
    let inspected = inspected(&package, &inspect.file, refusal);
    out.value(&inspected, || show(out, &inspected, began.elapsed().as_secs_f64() * 1e3))?;
    if inspected.loads { Ok(()) } else { Err(Failure::Refuses(inspect.file.clone())) }
}

fn inspected<'a>(package: &'a Package, file: &'a Path, refusal: Option<String>) -> Inspected<'a> {
    let Manifest { description, partition, limits, allow, config, retry, .. } = package.manifest();
    let Limits { fuel, memory_kib, effects, output_kib, state_value_kib, state_kib } = *limits;
    Inspected {
        built: Built::new(package, file),
        description: description.as_deref(),
        triggers: package.manifest().triggers.iter().map(trigger).collect(),
        partition: match partition {
            Partition::Device => "device",
            Partition::Topic => "topic",
            Partition::Function => "function",
        },
        streams: &allow.streams,
        publish: &allow.publish,
        queues: &allow.queues,
        secrets: &allow.secrets,
        twin: &allow.twin,
        metrics: &allow.metrics,
        blobs: allow.blobs.iter().map(ToString::to_string).collect(),
        blobs_read: allow.blobs_read.iter().map(ToString::to_string).collect(),
        tries: retry.tries,
        config: config.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect(),
        limits: ShownLimits { fuel, memory_kib, effects, output_kib, state_value_kib, state_kib },
        module: Anatomy::of(package.bytes()),
        loads: refusal.is_none(),
        refusal,
    }
}

/// A trigger, with its kind.
fn trigger(trigger: &Trigger) -> String {
    match trigger {
        Trigger::Mqtt { filter } => format!("mqtt {filter}"),
        Trigger::Http { route, .. } => format!("http {route}"),
        Trigger::Schedule { name, schedule, .. } => format!("cron {schedule} ({name})"),
        Trigger::Queue { queue } => format!("queue {queue}"),
        Trigger::Device { change } => {
            format!("device {}", change.map_or("connected or disconnected", |change| change.name()))
        }
        Trigger::Blob { pattern } => format!("blob {pattern}"),
        other => format!("{other:?}"),
    }
}

impl Anatomy {
    /// Reads up to where the module is damaged; the loader says what is wrong there.
    fn of(wasm: &[u8]) -> Self {
        let mut anatomy = Self::default();
        for payload in Parser::new(0).parse_all(wasm).map_while(Result::ok) {
            anatomy.add(payload);
        }
        anatomy
    }

    fn add(&mut self, payload: Payload<'_>) {
        let name = match &payload {
            Payload::CustomSection(section) => format!("custom {:?}", section.name()),
            Payload::TypeSection(_) => "types".to_owned(),
            Payload::ImportSection(_) => "imports".to_owned(),
            Payload::FunctionSection(_) => "functions".to_owned(),
            Payload::TableSection(_) => "tables".to_owned(),
            Payload::MemorySection(_) => "memory".to_owned(),
            Payload::GlobalSection(_) => "globals".to_owned(),
            Payload::ExportSection(_) => "exports".to_owned(),
            Payload::StartSection { .. } => "start".to_owned(),
            Payload::ElementSection(_) => "elements".to_owned(),
            Payload::CodeSectionStart { .. } => "code".to_owned(),
            Payload::DataSection(_) => "data".to_owned(),
            _ => "other".to_owned(),
        };
        if let Some((_, range)) = payload.as_section() {
            self.sections.push(Section { name, bytes: range.len() });
        }
        match payload {
            Payload::ImportSection(section) => {
                for import in section.into_iter().map_while(Result::ok) {
                    let known = import.module == NAMESPACE
                        && matches!(import.ty, TypeRef::Func(_))
                        && IMPORTS.iter().any(|(name, ..)| *name == import.name);
                    let (module, name) = (import.module.to_owned(), import.name.to_owned());
                    self.imports.push(Import { module, name, known });
                }
            }
            Payload::ExportSection(section) => {
                self.exports.extend(section.into_iter().map_while(Result::ok).map(|export| export.name.to_owned()));
            }
            Payload::MemorySection(section) => {
                let pages: u64 = section.into_iter().map_while(Result::ok).map(|memory| memory.initial).sum();
                self.memory_bytes = pages.saturating_mul(64 << 10);
            }
            _ => {}
        }
    }
}

fn show(out: &Out, inspected: &Inspected<'_>, load_ms: f64) -> String {
    let list = |items: Vec<String>| match items.is_empty() {
        true => "nothing".to_owned(),
        false => plain(&items.join(", ")).replace('\n', "\\n"),
    };
    let Inspected { built, limits, module, .. } = inspected;
    let mut rows = Vec::new();
    if let Some(description) = inspected.description {
        rows.push(("about", plain(description)));
    }
    rows.push(("runs on", list(inspected.triggers.clone())));
    rows.push(("order", format!("by {}: what runs in order and shares state", inspected.partition)));
    rows.push(("streams", list(inspected.streams.to_vec())));
    rows.push(("publish", list(inspected.publish.to_vec())));
    rows.push(("queues", list(inspected.queues.to_vec())));
    rows.push(("secrets", list(inspected.secrets.to_vec())));
    rows.push(("twin", list(inspected.twin.to_vec())));
    rows.push(("metrics", list(inspected.metrics.to_vec())));
    rows.push(("blobs", list(inspected.blobs.clone())));
    rows.push(("blobs read", list(inspected.blobs_read.clone())));
    rows.push(("tries", format!("{} for each event", inspected.tries)));
    rows.push(("config", list(inspected.config.iter().map(|(key, value)| format!("{key}={value}")).collect())));
    rows.push((
        "limits",
        format!(
            "{} units of fuel, {} KiB of memory, {} effects of {} KiB, {} KiB of state with values \
             of {} KiB at most",
            limits.fuel, limits.memory_kib, limits.effects, limits.output_kib, limits.state_kib, limits.state_value_kib
        ),
    ));
    rows.push(("memory", format!("{} KiB at its start", module.memory_bytes >> 10)));
    let import = |import: &Import| match import.known {
        true => import.name.clone(),
        false => out.paint(Paint::Bad, plain(&format!("{} {} (unknown)", import.module, import.name))),
    };
    // Painted, and thus not made plain again.
    let imports: Vec<String> = module.imports.iter().map(import).collect();
    rows.push(("imports", if imports.is_empty() { list(Vec::new()) } else { imports.join(", ") }));
    rows.push(("exports", list(module.exports.clone())));
    rows.push(("parts", list(module.sections.iter().map(|part| format!("{} {}", part.name, part.bytes)).collect())));
    rows.push((
        "loads",
        match &inspected.refusal {
            None => out.paint(Paint::Good, format!("yes, in {load_ms:.1} ms")),
            Some(why) => out.paint(Paint::Bad, format!("no: {}", plain(why))),
        },
    ));
    let rows = rows.into_iter().map(|(label, text)| format!("\n{:<8} {text}", format!("{label}:")));
    format!("{}{}", built.text(), rows.collect::<String>())
}
