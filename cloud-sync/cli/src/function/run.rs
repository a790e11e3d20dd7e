//! `edgectl fn run`: a function on this machine, on real events.

mod broker;

use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};

use agent_core::{Effect, Event};
use serde::Serialize;

use super::paint;
use crate::args::Run;
use crate::failure::Failure;
use crate::local::{self, Fixture, How, Incoming, Local, Ran, SEED, Setting, Shown};
use crate::out::{Out, Paint};
use crate::source::Source;

pub(crate) async fn run(out: &Out, run: &Run) -> Result<(), Failure> {
    let source = Source::new(&run.given.source, run.given.install_target);
    let package = source.package()?;
    let load = |setting, seed| Local::load(&package, setting, seed);
    let counts = match (&run.events, &run.broker) {
        (Some(path), _) => {
            let fixture = Fixture::read(path)?;
            let local = load(fixture.setting(&run.given.over), run.seed.unwrap_or(fixture.seed))?;
            let mut runner = Runner { out, local, counts: Counts::default(), record: None };
            for event in &fixture.events {
                runner.give(event)?;
            }
            runner.counts
        }
        (None, address) => {
            let address = address.as_deref().unwrap_or_default();
            let local = load(Setting::default().with(&run.given.over), run.seed.unwrap_or(SEED))?;
            let record = run.record.as_deref().map(|path| Record::new(path, address)).transpose()?;
            let mut runner = Runner { out, local, counts: Counts::default(), record };
            broker::listen(&mut runner, address, run).await?;
            runner.counts
        }
    };
    counts.show(out)
}

/// Gives events to a function, and prints what it makes.
struct Runner<'a> {
    out: &'a Out,
    local: Local,
    counts: Counts,
    record: Option<Record>,
}

#[derive(Default, Serialize)]
struct Counts {
    events: u64,
    /// Events that the function did not see.
    not_run: u64,
    traps: u64,
    emitted: u64,
    published: u64,
    fuel: u64,
}

#[derive(Serialize)]
struct Summary<'a> {
    summary: &'a Counts,
}

impl Runner<'_> {
    /// Gives the function an event; answers with what came of it.
    fn give(&mut self, event: &Event) -> Result<Ran, Failure> {
        if let Some(record) = &mut self.record {
            record.add(event)?;
        }
        let ran = self.local.run(event);
        self.counts.add(&ran);
        let number = usize::try_from(self.counts.events).unwrap_or(usize::MAX);
        self.out.value(&Shown::new(number, event, &ran), || self.show(number, event, &ran))?;
        Ok(ran)
    }

    fn show(&self, number: usize, event: &Event, ran: &Ran) -> String {
        let mut text = self.out.paint(Paint::Head, local::title(number, event));
        for line in local::lines(ran, &[]) {
            text.push_str(&format!("\n    {}", self.out.paint(paint(line.kind), line.text)));
        }
        text
    }
}

impl Counts {
    fn add(&mut self, ran: &Ran) {
        self.events += 1;
        self.fuel += ran.fuel;
        match &ran.how {
            How::Done(effects) => {
                let count = |which: fn(&Effect) -> bool| effects.iter().filter(|effect| which(effect)).count() as u64;
                self.emitted += count(|effect| matches!(effect, Effect::Emit { .. }));
                self.published += count(|effect| matches!(effect, Effect::Publish { .. }));
            }
            How::Failed(_) => self.traps += 1,
            How::Known(_) | How::Unchanged | How::Unwanted => self.not_run += 1,
        }
    }

    fn show(&self, out: &Out) -> Result<(), Failure> {
        let Self { events, not_run, traps, emitted, published, fuel } = self;
        out.value(&Summary { summary: self }, || {
            let each = fuel / events.saturating_sub(*not_run).max(1);
            let paint = if *traps > 0 { Paint::Bad } else { Paint::Plain };
            format!(
                "\nevents:    {events}, {not_run} of them not run\nrecords:   {emitted}\npublishes: {published}\n\
                 traps:     {}\nfuel:      {each} units for a run",
                out.paint(paint, traps)
            )
        })
    }
}

/// A file that the events are written to.
struct Record {
    path: PathBuf,
    file: File,
}

#[derive(Serialize)]
struct Header {
    fixture: u32,
    about: String,
}

impl Record {
    fn new(path: &Path, from: &str) -> Result<Self, Failure> {
        let file =
            OpenOptions::new().write(true).create_new(true).open(path).map_err(|source| match source.kind() {
                ErrorKind::AlreadyExists => Failure::Exists(path.to_owned()),
                _ => Failure::File { action: "cannot write", path: path.to_owned(), source },
            })?;
        let mut record = Self { path: path.to_owned(), file };
        record.line(&Header { fixture: 1, about: format!("recorded from {from}") })?;
        Ok(record)
    }

    fn add(&mut self, event: &Event) -> Result<(), Failure> {
        self.line(&Incoming::of(event))
    }

    fn line(&mut self, value: &impl Serialize) -> Result<(), Failure> {
        let mut text = serde_json::to_string(value).expect("plain structs become JSON");
        text.push('\n');
        self.file.write_all(text.as_bytes()).map_err(Failure::file("cannot write", &self.path))
    }
}
