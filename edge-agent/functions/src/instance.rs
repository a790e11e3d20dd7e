//! Instances, and how one is made as new for the next event.
//!
//! To make an instance takes a third of a short run: the interpreter enters each function of the module into a table. So an
//! instance that was tried out as the function was loaded, and then each one whose run went well, is set back to what it was
//! before and kept for the function's next event: its memory and its globals are as compiled, and the host's side of it is made
//! anew. What else a run may change (a table, the size of the memory, segments that were dropped) cannot be undone from
//! outside; an instance that did, or might have done, is dropped, as is one whose run failed. A function cannot tell which sort
//! it got, and takes the same fuel.

use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use function_abi::{EXPORT_ALLOC, EXPORT_HANDLE};
use wasmi::{Global, Instance, Memory, Store, TypedFunc, Val};

use crate::hidden;
use crate::host::Host;

/// Most bytes that all instances take which wait for an event, about. What runs now is not among them.
const SPARE_BYTES: usize = 1 << 20;

/// Bytes that are looked at together to find those that are not zero.
const CHUNK: usize = 64;

/// An instance, or the store for one.
pub(crate) struct Live {
    pub(crate) store: Store<Host>,
    pub(crate) made: Option<Made>,
}

/// What was made in a store.
pub(crate) struct Made {
    pub(crate) instance: Instance,
    pub(crate) memory: Option<Memory>,
    /// What it offers to the host, if it is no plug-in.
    pub(crate) exports: Option<Exports>,
    /// How it was before its first event; `None`: it serves one only.
    origin: Option<Origin>,
}

/// What an instance offers to the host.
#[derive(Clone, Copy)]
pub(crate) struct Exports {
    pub(crate) alloc: TypedFunc<u32, u32>,
    pub(crate) handle: TypedFunc<(u32, u32), i32>,
}

/// What an instance was when it was made.
struct Origin {
    globals: Vec<(Global, Val)>,
    memory: Image,
}

/// A memory: these bytes from there on, and zeros around them.
#[derive(Debug, PartialEq, Eq)]
struct Image {
    size: usize,
    start: usize,
    bytes: Box<[u8]>,
}

/// Which instances of a function are made as new.
pub(crate) struct Renewal {
    spares: Arc<Spares>,
    /// The function's, among all that have these spares.
    number: u64,
    globals: usize,
    instance_bytes: usize,
}

/// Instances that wait for an event of their function.
#[derive(Default)]
pub(crate) struct Spares {
    shelf: Mutex<Shelf>,
    functions: AtomicU64,
}

#[derive(Default)]
struct Shelf {
    /// Those that were used last are at the end.
    live: Vec<Spare>,
    bytes: usize,
}

struct Spare {
    function: u64,
    bytes: usize,
    /// It has served no event yet.
    unused: bool,
    /// Boxed, for it is large, and goes in and out.
    live: Box<Live>,
}

impl Exports {
    pub(crate) fn of(instance: Instance, store: &Store<Host>) -> Result<Self, wasmi::Error> {
        Ok(Self {
            alloc: instance.get_typed_func(store, EXPORT_ALLOC)?,
            handle: instance.get_typed_func(store, EXPORT_HANDLE)?,
        })
    }
}

impl Made {
    /// Of an instance that no event was given to.
    pub(crate) fn new(
        instance: Instance,
        memory: Option<Memory>,
        exports: Option<Exports>,
        store: &Store<Host>,
        renewal: Option<&Renewal>,
    ) -> Self {
        let origin = renewal.zip(memory).and_then(|(renewal, memory)| {
            let globals = (0..renewal.globals).map(|number| {
                let global = instance.get_global(store, &hidden::global(number))?;
                Some((global, global.get(store)))
            });
            Some(Origin { globals: globals.collect::<Option<_>>()?, memory: Image::of(memory.data(store)) })
        });
        Self { instance, memory, exports, origin }
    }
}

impl Live {
    /// Makes the instance as new; false: it cannot be.
    fn renew(&mut self) -> bool {
        let Some(Made { memory: Some(memory), origin: Some(origin), .. }) = &self.made else { return false };
        origin.globals.iter().all(|(global, value)| global.set(&mut self.store, value.clone()).is_ok())
            && origin.memory.restore(memory.data_mut(&mut self.store))
    }
}

impl Image {
    fn of(memory: &[u8]) -> Self {
        let used = |chunk: &[u8]| chunk.iter().fold(0, |all, byte| all | byte) != 0;
        let start = memory.chunks(CHUNK).position(used).map_or(memory.len(), |chunk| chunk * CHUNK);
        let rest = &memory[start..];
        let len = rest.chunks(CHUNK).rposition(used).map_or(0, |chunk| ((chunk + 1) * CHUNK).min(rest.len()));
        Self { size: memory.len(), start, bytes: rest[..len].into() }
    }

    /// False: the memory has another size.
    fn restore(&self, memory: &mut [u8]) -> bool {
        if memory.len() != self.size {
            return false;
        }
        let (before, rest) = memory.split_at_mut(self.start);
        let (here, after) = rest.split_at_mut(self.bytes.len());
        before.fill(0);
        here.copy_from_slice(&self.bytes);
        after.fill(0);
        true
    }
}

impl Renewal {
    /// Of a function that was just loaded: how many of its globals change, and what an instance of it takes.
    pub(crate) fn new(spares: &Arc<Spares>, globals: usize, instance_bytes: usize) -> Self {
        let number = spares.functions.fetch_add(1, Ordering::Relaxed);
        Self { spares: Arc::clone(spares), number, globals, instance_bytes }
    }

    /// An instance that waits for an event.
    pub(crate) fn take(&self) -> Option<Box<Live>> {
        self.spares.with(|shelf| {
            let at = shelf.live.iter().rposition(|spare| spare.function == self.number)?;
            let Spare { bytes, live, .. } = shelf.live.remove(at);
            shelf.bytes -= bytes;
            Some(live)
        })
    }

    /// Keeps the instance with which the function was tried out. Of all such the last one stays: of many functions that are
    /// loaded at a start, few have an event soon.
    pub(crate) fn put_first(&self, live: Box<Live>) {
        self.keep(live, true);
    }

    /// Keeps an instance whose run went well, if it can be made as new. The host's side of it is made anew by the next run.
    pub(crate) fn put(&self, mut live: Box<Live>) {
        if live.renew() {
            self.keep(live, false);
        }
    }

    fn keep(&self, live: Box<Live>, unused: bool) {
        let Some(origin) = live.made.as_ref().and_then(|made| made.origin.as_ref()) else { return };
        let bytes = self.instance_bytes.saturating_add(origin.memory.bytes.len());
        let dropped = self.spares.with(|shelf| {
            let mut dropped: Vec<Spare> = shelf.live.extract_if(.., |spare| unused && spare.unused).collect();
            shelf.bytes -= dropped.iter().map(|spare| spare.bytes).sum::<usize>();
            shelf.bytes = shelf.bytes.saturating_add(bytes);
            shelf.live.push(Spare { function: self.number, bytes, unused, live });
            while shelf.bytes > SPARE_BYTES {
                let oldest = shelf.live.remove(0);
                shelf.bytes -= oldest.bytes;
                dropped.push(oldest);
            }
            dropped
        });
        // Not while others wait for the lock.
        drop(dropped);
    }
}

impl Drop for Renewal {
    // A function that was replaced leaves nothing behind.
    fn drop(&mut self) {
        while self.take().is_some() {}
    }
}

impl Spares {
    fn with<T>(&self, work: impl FnOnce(&mut Shelf) -> T) -> T {
        work(&mut self.shelf.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl fmt::Debug for Spares {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Spares").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use agent_core::Event;
    use agent_core::event::EventKind;
    use proptest::prelude::*;

    use super::*;
    use crate::{Engine, Function, NoReads, Outcome, Spec};

    /// A function that fails where it finds what a run before it left behind, and leaves behind what it can.
    fn module(fields: &str, check: &str, change: &str) -> Vec<u8> {
        wat::parse_str(format!(
            r#"(module
                (memory (export "memory") 1 2) {fields}
                (data (i32.const 256) "as compiled")
                (global $number (mut i32) (i32.const 7)) (global $float (export "float") (mut f64) (f64.const nan:0x8000000000001))
                (func (export "edge_alloc") (param i32) (result i32) (i32.const 1024))
                (func (export "edge_handle") (param i32 i32) (result i32)
                    (if (i32.load8_u (i32.const 65535)) (then (return (i32.const 1))))
                    (if (i32.ne (i32.load8_u (i32.const 256)) (i32.const 97)) (then (return (i32.const 2))))
                    (if (i32.ne (global.get $number) (i32.const 7)) (then (return (i32.const 3))))
                    (if (i64.ne (i64.reinterpret_f64 (global.get $float)) (i64.const 0x7ff8000000000001))
                        (then (return (i32.const 4))))
                    {check}
                    (i32.store8 (i32.const 65535) (i32.const 1)) (i32.store8 (i32.const 256) (i32.const 0))
                    (global.set $number (i32.const 8)) (global.set $float (f64.const 1))
                    {change}
                    (i32.const 0)))"#
        ))
        .unwrap()
    }

    fn spares(engine: &Engine) -> Vec<u64> {
        engine.spares.with(|shelf| {
            assert_eq!(shelf.bytes, shelf.live.iter().map(|spare| spare.bytes).sum::<usize>());
            shelf.live.iter().map(|spare| spare.function).collect()
        })
    }

    fn run(function: &Function) -> String {
        let event = Event::new(EventKind::Mqtt, "device", "a/b", *b"21.5", 1_700_000_000_000_000);
        format!("{:?}", function.run(&event, &mut NoReads, 7))
    }

    /// Runs it three times, each as if it were the first; how many of its instances are kept.
    fn kept(fields: &str, check: &str, change: &str) -> usize {
        let engine = Engine::new();
        let function = engine.load(Spec::default(), &module(fields, check, change)).unwrap();
        let first = run(&function);
        assert!(first.contains("Done"), "{first}");
        assert_eq!([run(&function), run(&function)], [first.clone(), first]);
        spares(&engine).len()
    }

    #[test]
    fn an_instance_that_served_an_event_is_as_new_for_the_next() {
        assert_eq!(kept("", "", ""), 1);
        // What may be read, but not changed.
        let table = "(table 1 funcref) (func $f) (elem (i32.const 0) $f)";
        assert_eq!(kept(table, "(if (i32.eq (table.size 0) (i32.const 2)) (then (return (i32.const 5))))", ""), 1);
        assert_eq!(kept(table, "(if (ref.is_null (table.get 0 (i32.const 0))) (then (return (i32.const 5))))", ""), 1);
        // It only looks like `table.set`.
        assert_eq!(kept("", "", "(drop (i32.const 0x26)) (memory.fill (i32.const 0) (i32.const 1) (i32.const 8))"), 1);
        let copied = "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 2))";
        assert_eq!(kept("(data $d \"abc\")", "", copied), 1);
    }

    #[test]
    fn one_that_cannot_be_made_as_new_serves_one_event() {
        assert_eq!(
            kept(
                "",
                "(if (i32.ne (memory.size) (i32.const 1)) (then (return (i32.const 5))))",
                "(drop (memory.grow (i32.const 1)))"
            ),
            0
        );
        let table = "(table 2 4 funcref) (func $f) (elem (i32.const 0) $f) (elem $more func $f)";
        let full = "(if (ref.is_null (table.get 0 (i32.const 0))) (then (return (i32.const 5))))";
        let empty = "(if (i32.eqz (ref.is_null (table.get 0 (i32.const 1)))) (then (return (i32.const 6))))";
        let small = "(if (i32.ne (table.size 0) (i32.const 2)) (then (return (i32.const 7))))";
        for (check, change) in [
            (full, "(table.set 0 (i32.const 0) (ref.null func))"),
            (full, "(table.fill 0 (i32.const 0) (ref.null func) (i32.const 1))"),
            (empty, "(table.copy 0 0 (i32.const 1) (i32.const 0) (i32.const 1))"),
            (empty, "(table.init 0 $more (i32.const 1) (i32.const 0) (i32.const 1))"),
            (small, "(drop (table.grow 0 (ref.null func) (i32.const 1)))"),
            ("", "(elem.drop $more)"),
        ] {
            assert_eq!(kept(table, check, change), 0, "{change}");
        }
        let two = "(table 1 funcref) (table 1 funcref) (func $f) (elem (table 1) (i32.const 0) func $f)";
        let full = "(if (ref.is_null (table.get 1 (i32.const 0))) (then (return (i32.const 5))))";
        assert_eq!(kept(two, full, "(table.set 1 (i32.const 0) (ref.null func))"), 0);
        let passive = "(data $d \"abc\")";
        assert_eq!(kept(passive, "(memory.init $d (i32.const 0) (i32.const 0) (i32.const 2))", "(data.drop $d)"), 0);
        let reference = "(global $r (mut funcref) (ref.null func)) (func $f) (elem declare func $f)";
        let null = "(if (i32.eqz (ref.is_null (global.get $r))) (then (return (i32.const 5))))";
        assert_eq!(kept(reference, null, "(global.set $r (ref.func $f))"), 0);
        assert_eq!(kept("(func $s) (start $s)", "", ""), 0);
        assert_eq!(kept("(func (export \"edge_v1:global:0\"))", "", ""), 0);
        let many: String = (0..=16).map(|_| "(global (mut i32) (i32.const 0))").collect();
        assert_eq!(kept(&many, "", ""), 0);
    }

    #[test]
    fn the_first_event_finds_the_one_with_which_the_function_was_tried_out() {
        let engine = Engine::new();
        let load = || engine.load(Spec::default(), &module("", "", "")).unwrap();
        let function = load();
        assert_eq!(spares(&engine), [0]);
        run(&function);
        let (other, last) = (load(), load());
        assert_eq!(spares(&engine), [0, 2]);
        run(&last);
        run(&other);
        assert_eq!(spares(&engine), [0, 2, 1]);
    }

    #[test]
    fn one_whose_run_failed_is_dropped() {
        let engine = Engine::new();
        for change in ["unreachable", "(return (i32.const 1))", "(loop (br 0))"] {
            let function = engine.load(Spec::default(), &module("", "", change)).unwrap();
            let first = run(&function);
            assert!(first.contains("Failed"), "{first}");
            assert_eq!(run(&function), first);
            assert!(spares(&engine).is_empty());
        }
    }

    #[test]
    fn the_instances_that_wait_are_bounded_and_go_with_their_function() {
        let engine = Engine::new();
        let wasm = module("", "", "");
        let functions: Vec<_> = (0..40).map(|_| engine.load(Spec::default(), &wasm).unwrap()).collect();
        for function in &functions {
            run(function);
        }
        let kept = spares(&engine);
        assert!(kept.len() > 8 && kept.len() < 17, "{kept:?}");
        assert_eq!(kept, (40 - kept.len() as u64..40).collect::<Vec<_>>());
        // What is used again stays.
        run(&functions[kept[0] as usize]);
        assert_eq!(spares(&engine), [&kept[1..], &kept[..1]].concat());
        drop(functions);
        assert!(spares(&engine).is_empty());
        let function = engine.load(Spec::default(), &wasm).unwrap();
        assert!(matches!(
            function.run(&Event::new(EventKind::Mqtt, "d", "t", *b"", 0), &mut NoReads, 1).outcome,
            Outcome::Done(_)
        ));
    }

    proptest! {
        #[test]
        fn a_memory_becomes_what_it_was(
            size in 0_usize..4,
            written in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
            changed in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..6),
        ) {
            let mut memory = vec![0; size * 100];
            let write = |memory: &mut Vec<u8>, changes: Vec<(prop::sample::Index, u8)>| {
                for (at, byte) in changes.into_iter().filter(|_| size > 0) {
                    let at = at.index(memory.len());
                    memory[at] = byte;
                }
            };
            write(&mut memory, written);
            let (before, image) = (memory.clone(), Image::of(&memory));
            write(&mut memory, changed);
            prop_assert!(image.restore(&mut memory));
            prop_assert_eq!(&memory, &before);
            memory.push(0);
            prop_assert!(!image.restore(&mut memory));
        }
    }
}
