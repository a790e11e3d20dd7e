//! A function that is ready, and one run of it.

use std::fmt;
use std::sync::{Arc, OnceLock};

use agent_core::event::EventKind;
use agent_core::{Effects, Event};
use function_abi::{
    Attributes, BLOB_DIGEST, EVENT_ALIGN, EXPORT_ALLOC, EXPORT_HANDLE, EXPORT_MEMORY, EventHeader, LogLevel, Span,
};
use wasmi::{Linker, Module, Store, TypedResumableCall};

use crate::backtrace;
use crate::contain::contain;
use crate::fuel::{PER_STATE_READ, SLICE, STRETCH};
use crate::hidden;
use crate::host::{Host, Question, Shared, StateRead, Stop};
use crate::imports::{answer_state, charge, units};
use crate::instance::{Exports, Live, Made, Renewal};
use crate::limits::Limits;
use crate::reads::{NoReads, ReadError, Reads};
use crate::source::Source;
use crate::trap::{Trap, TrapKind};

/// A function that is checked and compiled. Cheap to clone; may run on many threads at once.
#[derive(Clone)]
pub struct Function(Arc<Inner>);

struct Inner {
    engine: wasmi::Engine,
    module: Module,
    linker: Linker<Host>,
    shared: Arc<Shared>,
    /// Fuel that instantiating takes.
    start_fuel: u64,
    /// Whether there is a start function to be called.
    starts: bool,
    /// Where instances wait that are as new; `None`: each event gets one that was just made.
    renewal: Option<Renewal>,
    /// What it was loaded from.
    source: Arc<dyn Source>,
    /// The copy that tells of its calls, once a backtrace was asked for; else why there is none.
    traced: OnceLock<Result<Function, String>>,
}

/// One run of a function.
#[derive(Debug)]
pub struct Run {
    /// How it ended.
    pub outcome: Outcome,
    /// Units of fuel that it took, instantiation included.
    pub fuel: u64,
    /// Bytes of memory at the end; memory never shrinks, so this is also the most it had.
    pub memory_bytes: usize,
    /// Bytes of its effects, as the limit `output_bytes` counts them; 0 if none are to be done.
    pub bytes_out: u64,
    /// What it logged, in order, whatever the outcome.
    pub logs: Vec<LogLine>,
    /// Log lines that were dropped or cut short because of the limits.
    pub logs_dropped: u64,
}

/// How a run ended.
#[derive(Debug)]
pub enum Outcome {
    /// The event is handled, and this is to be done, together or not at all.
    Done(Effects),
    /// The function failed; nothing is to be done.
    Failed(Trap),
    /// The store failed; nothing is to be done, and the event is as good as never run.
    Abandoned(ReadError),
}

/// A line that a function logged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogLine {
    /// How much it matters.
    pub level: LogLevel,
    /// The text.
    pub text: String,
    /// Names with values.
    pub fields: Vec<(String, String)>,
}

/// Why a run ends before its time.
pub(crate) enum End {
    Failed(Trap),
    Abandoned(ReadError),
}

impl Function {
    pub(crate) fn new(
        engine: wasmi::Engine,
        module: Module,
        linker: Linker<Host>,
        shared: Arc<Shared>,
        start_fuel: u64,
        renewal: Option<Renewal>,
        source: Arc<dyn Source>,
    ) -> Self {
        let (starts, traced) = (module.get_export(hidden::START).is_some(), OnceLock::new());
        Self(Arc::new(Inner { engine, module, linker, shared, start_fuel, starts, renewal, source, traced }))
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.0.shared.identity.name
    }

    /// Its version.
    pub fn version(&self) -> &str {
        &self.0.shared.identity.version
    }

    /// What a trap of it says, without its name and version in front.
    pub fn without_name<'m>(&self, message: &'m str) -> &'m str {
        let name = self.0.shared.identity.to_string();
        message.strip_prefix(&name).and_then(|rest| rest.strip_prefix(": ")).unwrap_or(message)
    }

    /// What it may use.
    pub fn limits(&self) -> &Limits {
        &self.0.shared.limits
    }

    /// Gives the function one event, on an instance that is as new. Never blocks but in `reads`, and never panics but in
    /// `reads`.
    ///
    /// `seed` decides all random numbers of the run: the same event, state, configuration and seed give the same run.
    pub fn run(&self, event: &Event, reads: &mut dyn Reads, seed: u64) -> Run {
        let (ended, mut live) = self.start(event, reads, seed, self.0.shared.limits.fuel);
        let store = &mut live.store;
        let own = store.data().memory.map_or(0, |memory| memory.data_size(&*store));
        let memory_bytes = own + store.data().kernel.size();
        let left = fuel_left(store);
        let host = std::mem::replace(store.data_mut(), self.host(0));
        let bytes_out = if ended.is_ok() { host.output_bytes as u64 } else { 0 };
        let outcome = match ended {
            Ok(()) => Outcome::Done(host.effects),
            Err(End::Failed(trap)) => Outcome::Failed(trap),
            Err(End::Abandoned(error)) => Outcome::Abandoned(error),
        };
        if let (Outcome::Done(_), Some(renewal)) = (&outcome, &self.0.renewal) {
            renewal.put(live);
        }
        // The instruction that could not be paid for was not taken from the fuel; all of it counts as used.
        let left = if matches!(&outcome, Outcome::Failed(trap) if trap.kind == TrapKind::OutOfFuel) { 0 } else { left };
        let fuel = self.0.shared.limits.fuel - left;
        Run { outcome, fuel, memory_bytes, bytes_out, logs: host.logs, logs_dropped: host.logs_dropped }
    }

    /// A run with so much fuel: how it ended, and all that is left of it.
    pub(crate) fn start(
        &self,
        event: &Event,
        reads: &mut dyn Reads,
        seed: u64,
        fuel: u64,
    ) -> (Result<(), End>, Box<Live>) {
        let mut live = match self.0.renewal.as_ref().and_then(Renewal::take) {
            Some(mut live) => {
                *live.store.data_mut() = self.host(seed);
                live
            }
            None => self.live(seed),
        };
        self.fuel(&mut live.store, fuel);
        let digest = event.attributes.iter().find(|(name, _)| event.kind == EventKind::Blob && name == "digest");
        live.store.data_mut().event_blob = digest.map(|(_, digest)| format!("{BLOB_DIGEST}{digest}"));
        let handled = self.handle(&mut live, event, reads);
        let ended = handled.and_then(|()| self.check_state(&mut live.store, reads));
        (ended, live)
    }

    /// What it was loaded from, its start function an export; the error is for a person.
    pub(crate) fn wasm(&self) -> Result<Vec<u8>, String> {
        let wasm = self.0.source.bytes()?;
        Ok(hidden::with_start(&wasm).map_err(|error| error.to_string())?.unwrap_or(wasm))
    }

    /// The copy of these bytes that tells of its calls, made when it is first asked for; the error is for a person.
    pub(crate) fn traced(&self, wasm: &[u8]) -> Result<&Self, &str> {
        self.0.traced.get_or_init(|| backtrace::traced(&self.0.shared, wasm)).as_ref().map_err(String::as_str)
    }

    /// Instantiates once, to see whether it can be; the instance waits for the first event.
    pub(crate) fn try_out(&self) -> Result<(), Trap> {
        let mut live = self.live(0);
        self.fuel(&mut live.store, self.0.shared.limits.fuel);
        live.made = match self.instantiate(&mut live.store, &mut NoReads) {
            Ok(made) => Some(made),
            Err(End::Failed(trap)) => return Err(trap),
            Err(End::Abandoned(error)) => return Err(self.fault(error.to_string())),
        };
        if let Some(renewal) = &self.0.renewal {
            renewal.put_first(live);
        }
        Ok(())
    }

    fn host(&self, seed: u64) -> Host {
        Host::new(Arc::clone(&self.0.shared), seed)
    }

    fn live(&self, seed: u64) -> Box<Live> {
        let mut store = Store::new(&self.0.engine, self.host(seed));
        store.limiter(|host| host);
        Box::new(Live { store, made: None })
    }

    /// Gives a run its fuel, less what it takes to instantiate: that is the same whether it has to be done or not.
    fn fuel(&self, store: &mut Store<Host>, fuel: u64) {
        let left = fuel.saturating_sub(self.0.start_fuel);
        let stretch = left.min(STRETCH);
        set_fuel(store, stretch, left - stretch);
        store.data_mut().given = fuel;
    }

    fn instantiate(&self, store: &mut Store<Host>, reads: &mut dyn Reads) -> Result<Made, End> {
        let inner = &*self.0;
        // It starts nothing: what was loaded has no start function, but an export in its place.
        let instance = contain(|| inner.linker.instantiate_and_start(&mut *store, &inner.module))
            .map_err(|panicked| End::Failed(self.fault(panicked.0)))?
            .map_err(|error| End::Failed(Trap::from_error(&error, store.data())))?;
        let fault = |error: wasmi::Error| End::Failed(self.fault(error.to_string()));
        if inner.starts {
            let start = instance.get_typed_func::<(), ()>(&*store, hidden::START).map_err(fault)?;
            self.call(store, reads, |store| start.call_resumable(store, ()))?;
        }
        let exports = match inner.shared.extism {
            Some(_) => None,
            None => Some(Exports::of(instance, store).map_err(fault)?),
        };
        let memory = instance.get_memory(&*store, EXPORT_MEMORY);
        Ok(Made::new(instance, memory, exports, store, inner.renewal.as_ref()))
    }

    fn handle(&self, live: &mut Live, event: &Event, reads: &mut dyn Reads) -> Result<(), End> {
        let Live { store, made } = live;
        let made = match made {
            Some(made) => made,
            None => made.insert(self.instantiate(store, reads)?),
        };
        store.data_mut().memory = made.memory;
        let exports = match (&self.0.shared.extism, made.exports) {
            (Some(extism), _) => return self.call_plugin(store, made.instance, extism, event, reads),
            (None, Some(exports)) => exports,
            (None, None) => return Err(End::Failed(self.fault("its exports are not known".to_owned()))),
        };
        let block = Block::of(event);
        let len = block.len(&self.0.shared.limits).map_err(|what| self.failed(TrapKind::EventTooLarge, what))?;
        self.charge(store, units(len as usize))?;
        let at = self.call(store, reads, |store| exports.alloc.call_resumable(store, len))?;
        self.write(store, &block, at, len)?;
        match self.call(store, reads, |store| exports.handle.call_resumable(store, (at, len)))? {
            0 => Ok(()),
            code => {
                let what = format!("failed: {EXPORT_HANDLE} answered {code}; 0 is success");
                Err(self.failed(TrapKind::Failed, what))
            }
        }
    }

    /// Whether the state has room for what the run put. Only where it gets tight, the values are looked at that make room by
    /// being replaced.
    fn check_state(&self, store: &mut Store<Host>, reads: &mut dyn Reads) -> Result<(), End> {
        let added = store.data().put_bytes();
        if added == 0 {
            return Ok(());
        }
        let limit = self.0.shared.limits.state_bytes;
        let held = reads.state_bytes().map_err(End::Abandoned)?;
        let mut after = held.saturating_add(added);
        if after <= limit {
            return Ok(());
        }
        for key in store.data().written() {
            self.charge(store, PER_STATE_READ)?;
            if let Some(old) = reads.state(&key).map_err(End::Abandoned)? {
                after = after.saturating_sub((key.len() + old.len()) as u64);
            }
        }
        if after <= limit {
            return Ok(());
        }
        let what = format!(
            "its state would come to {after} bytes, {limit} are allowed, and {held} are taken; delete what is not needed, \
             give values a time to live, or raise the limit \"state_bytes\""
        );
        Err(self.failed(TrapKind::StateFull, what))
    }

    /// Calls into the function, answers its reads of the state, and pauses after each slice of fuel, until it returns.
    pub(crate) fn call<R: wasmi::WasmResults>(
        &self,
        store: &mut Store<Host>,
        reads: &mut dyn Reads,
        begin: impl FnOnce(&mut Store<Host>) -> Result<TypedResumableCall<R>, wasmi::Error>,
    ) -> Result<R, End> {
        let mut step = contain(|| begin(&mut *store));
        loop {
            let state = step
                .map_err(|panicked| End::Failed(self.fault(panicked.0)))?
                .map_err(|error| End::Failed(Trap::from_error(&error, store.data())))?;
            let waiting = match state {
                TypedResumableCall::Finished(answer) => return Ok(answer),
                TypedResumableCall::OutOfFuel(paused) => {
                    let reserve = store.data().reserve;
                    let left = store.get_fuel().unwrap_or(0);
                    let more = STRETCH.max(paused.required_fuel().saturating_sub(left)).min(reserve);
                    if more == 0 {
                        return Err(End::Failed(Trap::out_of_fuel(store.data())));
                    }
                    let taken = store.data().given - fuel_left(store);
                    if taken - store.data().paused_at >= SLICE {
                        store.data_mut().paused_at = taken;
                        reads.pause(taken);
                    }
                    set_fuel(store, left + more, reserve - more);
                    step = contain(|| paused.resume(&mut *store));
                    continue;
                }
                TypedResumableCall::HostTrap(waiting) => waiting,
            };
            let read = match waiting.host_error().downcast_ref() {
                Some(Stop::ReadState) => store.data_mut().read.take(),
                _ => None,
            };
            let Some(StateRead { question, answer }) = read else {
                return Err(End::Failed(Trap::from_error(waiting.host_error(), store.data())));
            };
            self.charge(store, PER_STATE_READ)?;
            let value: Option<Arc<[u8]>> = match question {
                Question::Value(key) => reads.state(&key).map_err(End::Abandoned)?,
                Question::Next { prefix, after } => self.next_key(store, reads, &prefix, after)?.map(Into::into),
                Question::BlobSize(name) => {
                    let size = reads.blob_size(&name).map_err(End::Abandoned)?;
                    // No gateway has room for more in one blob than an i32 can say.
                    size.map(|size| i32::try_from(size).unwrap_or(i32::MAX).to_le_bytes().into())
                }
                Question::BlobPiece { name, offset, len } => {
                    reads.blob_piece(&name, offset.into(), len).map_err(End::Abandoned)?.map(Into::into)
                }
            };
            let answer = answer_state(store, answer, value.as_deref()).map_err(|stop| self.stopped(store, stop))?;
            step = contain(|| waiting.resume(&mut *store, &[answer]));
        }
    }

    /// The next key of the state as this run sees it: what it put itself, and what it found and did not delete.
    fn next_key(
        &self,
        store: &mut Store<Host>,
        reads: &mut dyn Reads,
        prefix: &[u8],
        mut after: Vec<u8>,
    ) -> Result<Option<Vec<u8>>, End> {
        let own = store.data().next_written(prefix, &after).map(<[u8]>::to_vec);
        loop {
            match (reads.next_key(prefix, &after).map_err(End::Abandoned)?, &own) {
                (Some(found), Some(own)) if found >= *own => return Ok(Some(own.clone())),
                (Some(found), _) if store.data().deleted(&found) => {
                    self.charge(store, PER_STATE_READ)?;
                    after = found;
                }
                (Some(found), _) => return Ok(Some(found)),
                (None, own) => return Ok(own.clone()),
            }
        }
    }

    /// Writes the event where the function made room for it.
    fn write(&self, store: &mut Store<Host>, block: &Block<'_>, at: u32, len: u32) -> Result<(), End> {
        let memory = store.data().memory.ok_or_else(|| End::Failed(self.fault("it has no memory".to_owned())))?;
        let memory = memory.data_mut(store);
        let size = memory.len();
        let why = if at == 0 {
            "which is how an allocator says that it has no room; give it more, or send smaller events".to_owned()
        } else if !at.is_multiple_of(EVENT_ALIGN) {
            format!("which is not divisible by {EVENT_ALIGN}")
        } else if u64::from(at) + u64::from(len) > size as u64 {
            format!("from where they do not fit into its memory of {size} bytes")
        } else {
            block.write(&mut memory[at as usize..at as usize + len as usize]);
            return Ok(());
        };
        let what = format!("{EXPORT_ALLOC} answered {at} when asked for {len} bytes, {why}");
        Err(self.failed(TrapKind::BadAlloc, what))
    }

    pub(crate) fn charge(&self, store: &mut Store<Host>, units: u64) -> Result<(), End> {
        charge(&mut *store, units).map_err(|stop| self.stopped(store, stop))
    }

    pub(crate) fn stopped(&self, store: &Store<Host>, stop: Stop) -> End {
        End::Failed(Trap::from_error(&wasmi::Error::host(stop), store.data()))
    }

    pub(crate) fn failed(&self, kind: TrapKind, what: String) -> End {
        End::Failed(Trap::of(&self.0.shared.identity, kind, what))
    }

    pub(crate) fn fault(&self, what: String) -> Trap {
        let what = format!("the interpreter failed: {what}");
        Trap::of(&self.0.shared.identity, TrapKind::EngineFault, what)
    }
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Function").field(&self.0.shared).finish()
    }
}

/// What the run may still take, over all stretches.
fn fuel_left(store: &Store<Host>) -> u64 {
    store.get_fuel().unwrap_or(0) + store.data().reserve
}

/// So much may be taken until the interpreter returns, and so much after that.
fn set_fuel(store: &mut Store<Host>, stretch: u64, reserve: u64) {
    store.set_fuel(stretch).expect("fuel is on in the configuration of every engine");
    store.data_mut().reserve = reserve;
}

/// An event as it lies in the function's memory.
struct Block<'a> {
    event: &'a Event,
    attributes: Vec<u8>,
}

impl<'a> Block<'a> {
    fn of(event: &'a Event) -> Self {
        let mut attributes = Vec::new();
        for (name, value) in &event.attributes {
            // Longer ones than an event may be come from nowhere.
            let _ = Attributes::write(name, value, |part| attributes.extend_from_slice(part));
        }
        Self { event, attributes }
    }

    fn parts(&self) -> [&[u8]; 4] {
        [self.event.device.as_bytes(), self.event.topic.as_bytes(), &self.event.payload, &self.attributes]
    }

    /// Bytes of the block, or why it has no place in any memory that the function may have.
    fn len(&self, limits: &Limits) -> Result<u32, String> {
        let len = self.parts().iter().fold(EventHeader::LEN, |len, part| len.saturating_add(part.len()));
        match u32::try_from(len) {
            Ok(short) if len <= limits.memory_bytes => Ok(short),
            _ => Err(format!(
                "the event takes {len} bytes, its memory may have {}; send smaller events, or raise the limit \
                 \"memory_bytes\"",
                limits.memory_bytes
            )),
        }
    }

    /// Writes the block; `out` has exactly its length.
    fn write(&self, out: &mut [u8]) {
        let (boot, sequence) =
            self.event.identity.as_ref().map_or((0, 0), |identity| (identity.boot, identity.sequence));
        let mut at = EventHeader::LEN;
        let [device, topic, payload, attributes] = self.parts().map(|part| {
            let span = Span { offset: at as u32, len: part.len() as u32 };
            out[at..at + part.len()].copy_from_slice(part);
            at += part.len();
            span
        });
        let header = EventHeader {
            header_len: EventHeader::LEN as u32,
            kind: self.event.kind as u32,
            time_us: self.event.time_us,
            boot,
            sequence,
            device,
            topic,
            payload,
            attributes,
        };
        out[..EventHeader::LEN].copy_from_slice(&header.to_bytes());
    }
}
