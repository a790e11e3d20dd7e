//! Extism plug-ins, run as they are: the 1.x interface of <https://extism.org>, of which this is the host's side.
//!
//! A plug-in knows no events and lists no effects. It has an input and an output, which lie in a memory apart
//! ([`kernel`]), and calls the host through the imports of [`imports`]. [`Extism`] says what of our model they are; all
//! limits of a function hold for a plug-in too.

pub(crate) mod imports;
mod input;
pub(crate) mod kernel;

use agent_core::Event;
use function_abi::{Priority, PublishFlags};
use function_package::Extism;
use wasmi::{ExternType, Instance, Module, Store, ValType};

use crate::error::LoadCause;
use crate::fuel::MEMORY_BYTES_PER_UNIT;
use crate::function::{End, Function};
use crate::host::{Host, Stop};
use crate::imports::units;
use crate::load::{check_memory, describe};
use crate::reads::Reads;
use crate::trap::TrapKind;

/// The import namespace, by which a plug-in is recognised.
pub(crate) const NAMESPACE: &str = "extism:host/env";

/// What runs before the function, if it is exported: the first of these that is.
const INITIALISERS: [&str; 2] = ["__wasm_call_ctors", "_initialize"];

/// Whether a module is a plug-in.
pub(crate) fn is_plugin(module: &Module) -> bool {
    module.imports().any(|import| import.module() == NAMESPACE)
}

/// Whether the exports that a plug-in must have are there.
pub(crate) fn check_exports(module: &Module, extism: &Extism) -> Result<(), LoadCause> {
    check_memory(module)?;
    let name = &extism.function;
    match module.get_export(name) {
        Some(found) if can_be_called(&found) => Ok(()),
        Some(found) => Err(LoadCause::WrongPluginFunction { name: name.clone(), found: describe(&found) }),
        None => {
            let exports = module.exports().filter(|export| can_be_called(export.ty()));
            let known: Vec<_> = exports.take(SHOWN_EXPORTS).map(|export| format!("{:?}", export.name())).collect();
            Err(LoadCause::NoPluginFunction { name: name.clone(), known: known.join(", ") })
        }
    }
}

fn can_be_called(ty: &ExternType) -> bool {
    matches!(ty, ExternType::Func(ty) if ty.params().is_empty() && matches!(ty.results(), [] | [ValType::I32]))
}

/// Exports that an error message lists.
const SHOWN_EXPORTS: usize = 10;

impl Function {
    /// Gives a plug-in one event: its input goes in, its function is called, and what comes out becomes an effect.
    pub(crate) fn call_plugin(
        &self,
        store: &mut Store<Host>,
        instance: Instance,
        extism: &Extism,
        event: &Event,
        reads: &mut dyn Reads,
    ) -> Result<(), End> {
        self.put_input(store, &input::of(event, extism.input))?;
        for name in INITIALISERS {
            if let Ok(initialise) = instance.get_typed_func::<(), ()>(&*store, name) {
                self.call(store, reads, |store| initialise.call_resumable(store, ()))?;
                break;
            }
        }
        // Of one of the two types, or it would not have been loaded.
        let code = match instance.get_typed_func::<(), i32>(&*store, &extism.function) {
            Ok(function) => self.call(store, reads, |store| function.call_resumable(store, ()))?,
            Err(_) => {
                let function = instance.get_typed_func::<(), ()>(&*store, &extism.function);
                let function = function.map_err(|error| End::Failed(self.fault(error.to_string())))?;
                self.call(store, reads, |store| function.call_resumable(store, ()))?;
                0
            }
        };
        let host = store.data();
        if let Some(error) = host.kernel.error() {
            let stop = host.fail(error);
            return Err(self.stopped(store, stop));
        }
        if code != 0 {
            let what = format!("failed: {:?} answered {code}; 0 is success", extism.function);
            return Err(self.failed(TrapKind::Failed, what));
        }
        let output = host.kernel.output().to_vec();
        if output.is_empty() {
            return Ok(());
        }
        self.charge(store, units(output.len()))?;
        list(store.data_mut(), extism, &output).map_err(|stop| self.stopped(store, stop))
    }

    fn put_input(&self, store: &mut Store<Host>, input: &[u8]) -> Result<(), End> {
        let allowed = kernel_room(store.data(), store.data().memory.map_or(0, |memory| memory.data_size(&*store)));
        let work = store.data_mut().kernel.set_input(input, allowed).map_err(|_| {
            let what = format!(
                "the input takes {} bytes, its memory has room for {allowed} beside its own; send smaller events, or \
                 raise the limit \"memory_bytes\"",
                input.len()
            );
            self.failed(TrapKind::EventTooLarge, what)
        })?;
        self.charge(store, units(input.len()) + work as u64 / MEMORY_BYTES_PER_UNIT)
    }
}

/// Bytes that the kernel's memory may have, beside `own` bytes of the plug-in.
fn kernel_room(host: &Host, own: usize) -> usize {
    host.shared.limits.memory_bytes.saturating_sub(own)
}

/// What becomes of an output.
fn list(host: &mut Host, extism: &Extism, output: &[u8]) -> Result<(), Stop> {
    if let Some(stream) = &extism.stream {
        host.emit(stream.as_bytes(), output, Priority::Normal as i32)?;
    }
    if let Some(topic) = &extism.topic {
        host.publish(topic.as_bytes(), output, PublishFlags { qos: 1, retain: false }.to_i32())?;
    }
    Ok(())
}
