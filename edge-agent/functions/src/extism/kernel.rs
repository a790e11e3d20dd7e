//! The memory that an Extism plug-in shares with its host, apart from the plug-in's own: input, output, keys and values go
//! through it, in blocks that both sides allocate.
//!
//! An address is a u64. Blocks ascend; what is freed is used again once everything behind it is freed too, which is how
//! plug-ins free. Each run begins with an empty one, and it is counted together with the plug-in's own memory.

use std::ops::Range;

/// Bytes in front of each block that count as memory, for what the host keeps of it, or many empty blocks would be free.
/// They also keep address 0 free, which means "nothing".
const HEAD: usize = 16;

/// Blocks begin at multiples of this, as 8 bytes at a time is how plug-ins copy.
const ALIGN: usize = 8;

/// Bytes of the first growth: most runs need no second one, and clearing more would cost each run time.
const FIRST_BYTES: usize = 4 << 10;

/// What is wrong with an address that a plug-in gave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Bad {
    /// A range that does not lie in the memory.
    Range {
        /// First byte.
        at: u64,
        /// Length.
        len: u64,
        /// Bytes that there are.
        size: usize,
    },
    /// No block begins there.
    NoBlock(u64),
}

/// Why a block was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Refused {
    /// Bytes that the memory would have had.
    pub(crate) size: usize,
}

/// A block. There may be as many as fit, so it is kept small.
#[derive(Clone, Copy, Debug)]
struct Block {
    at: u32,
    len: u32,
    freed: bool,
}

const _: () = assert!(size_of::<Block>() <= HEAD);

impl Block {
    fn range(&self) -> Range<usize> {
        self.at as usize..self.at as usize + self.len as usize
    }
}

/// The memory. Its size counts; what of it is used does not.
#[derive(Debug, Default)]
pub(crate) struct Kernel {
    bytes: Vec<u8>,
    /// By address.
    blocks: Vec<Block>,
    input: Range<usize>,
    output: Range<usize>,
    error: u64,
}

impl Kernel {
    /// Bytes that it has.
    pub(crate) fn size(&self) -> usize {
        self.bytes.len()
    }

    /// Makes a block of `len` bytes, if it then has `allowed` bytes at most; answers its address, and the bytes that were
    /// cleared and copied for it. A block of 0 bytes is at 0.
    pub(crate) fn alloc(&mut self, len: u64, allowed: usize) -> Result<(u64, usize), Refused> {
        if len == 0 {
            return Ok((0, 0));
        }
        let end = self.blocks.last().map_or(0, |block| block.range().end).next_multiple_of(ALIGN);
        let at = end + HEAD;
        let needed = usize::try_from(len).ok().and_then(|len| at.checked_add(len)).filter(|end| *end <= allowed);
        let Some(needed) = needed.filter(|end| u32::try_from(*end).is_ok()) else {
            return Err(Refused { size: usize::try_from(len).unwrap_or(usize::MAX).saturating_add(at) });
        };
        let work = self.grow(needed, allowed);
        self.blocks.push(Block { at: at as u32, len: len as u32, freed: false });
        Ok((at as u64, work))
    }

    /// Doubles, so that many small blocks do not copy everything each time.
    fn grow(&mut self, needed: usize, allowed: usize) -> usize {
        let size = self.bytes.len();
        if needed <= size {
            return 0;
        }
        let larger = needed.max(size * 2).max(FIRST_BYTES).min(allowed);
        self.bytes.reserve_exact(larger - size);
        self.bytes.resize(larger, 0);
        larger
    }

    /// A block with these bytes.
    pub(crate) fn place(&mut self, bytes: &[u8], allowed: usize) -> Result<(u64, usize), Refused> {
        let (at, work) = self.alloc(bytes.len() as u64, allowed)?;
        self.bytes[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
        Ok((at, work))
    }

    fn find(&self, at: u64) -> Option<usize> {
        let found = self.blocks.binary_search_by_key(&at, |block| u64::from(block.at)).ok()?;
        (!self.blocks[found].freed).then_some(found)
    }

    /// Frees a block; what is none is none already.
    pub(crate) fn free(&mut self, at: u64) {
        let Some(found) = self.find(at) else { return };
        self.blocks[found].freed = true;
        while self.blocks.last().is_some_and(|block| block.freed) {
            self.blocks.pop();
        }
        // What is allocated next must not be taken for input or output.
        for range in [&mut self.input, &mut self.output] {
            if range.start as u64 == at {
                *range = 0..0;
            }
        }
        if self.error == at {
            self.error = 0;
        }
    }

    /// Length of the block at `at`; 0 if there is none.
    pub(crate) fn length(&self, at: u64) -> u64 {
        self.find(at).map_or(0, |found| u64::from(self.blocks[found].len))
    }

    /// The bytes of the block at `at`; 0 is the empty one.
    pub(crate) fn block(&self, at: u64) -> Result<&[u8], Bad> {
        match self.find(at) {
            _ if at == 0 => Ok(&[]),
            Some(found) => Ok(&self.bytes[self.blocks[found].range()]),
            None => Err(Bad::NoBlock(at)),
        }
    }

    /// Loads up to 8 bytes, little-endian.
    pub(crate) fn load<const N: usize>(&self, at: u64) -> Result<u64, Bad> {
        self.range(at, N as u64).map(|range| number(&self.bytes[range]))
    }

    /// Stores the lowest `N` bytes, up to 8, little-endian.
    pub(crate) fn store<const N: usize>(&mut self, at: u64, value: u64) -> Result<(), Bad> {
        let range = self.range(at, N as u64)?;
        self.bytes[range].copy_from_slice(&value.to_le_bytes()[..N]);
        Ok(())
    }

    fn range(&self, at: u64, len: u64) -> Result<Range<usize>, Bad> {
        let size = self.bytes.len();
        match at.checked_add(len) {
            Some(end) if at >= HEAD as u64 && end <= size as u64 => Ok(at as usize..end as usize),
            _ => Err(Bad::Range { at, len, size }),
        }
    }

    /// Makes the input of these bytes.
    pub(crate) fn set_input(&mut self, input: &[u8], allowed: usize) -> Result<usize, Refused> {
        let (at, work) = self.place(input, allowed)?;
        self.input = at as usize..at as usize + input.len();
        Ok(work)
    }

    /// Where the input lies.
    pub(crate) fn input(&self) -> Range<usize> {
        self.input.clone()
    }

    /// Loads `N` bytes, up to 8, of the input; those behind its end are 0.
    pub(crate) fn load_input<const N: usize>(&self, at: u64) -> u64 {
        let input = &self.bytes[self.input.clone()];
        let from = usize::try_from(at).unwrap_or(usize::MAX).min(input.len());
        number(&input[from..from.saturating_add(N).min(input.len())])
    }

    /// Says which bytes are the output.
    pub(crate) fn set_output(&mut self, at: u64, len: u64) -> Result<(), Bad> {
        self.output = if len == 0 { 0..0 } else { self.range(at, len)? };
        Ok(())
    }

    /// The output; empty if there is none.
    pub(crate) fn output(&self) -> &[u8] {
        &self.bytes[self.output.clone()]
    }

    /// Says which block holds the error; 0: none does.
    pub(crate) fn set_error(&mut self, at: u64) -> Result<(), Bad> {
        self.block(at)?;
        self.error = at;
        Ok(())
    }

    /// The error, if there is one.
    pub(crate) fn error(&self) -> Option<&[u8]> {
        self.block(self.error).ok().filter(|error| !error.is_empty())
    }
}

/// Up to 8 bytes, little-endian.
fn number(bytes: &[u8]) -> u64 {
    let mut eight = [0; 8];
    eight[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(eight)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn blocks_hold_what_is_stored_and_are_told_by_their_address() {
        let mut kernel = Kernel::default();
        let (a, work) = kernel.alloc(10, 1 << 20).unwrap();
        assert_eq!((a, work, kernel.size()), (16, FIRST_BYTES, FIRST_BYTES));
        let (b, work) = kernel.place(b"value", 1 << 20).unwrap();
        assert_eq!((b, work), (48, 0));
        kernel.store::<8>(a, u64::MAX).unwrap();
        kernel.store::<1>(a + 8, 0x1ff).unwrap();
        assert_eq!(kernel.block(a), Ok(&[255, 255, 255, 255, 255, 255, 255, 255, 255, 0][..]));
        assert_eq!((kernel.load::<8>(a + 2).unwrap(), kernel.load::<1>(b).unwrap()), (0x00ff_ffff_ffff_ffff, 118));
        assert_eq!((kernel.length(a), kernel.length(b), kernel.length(a + 1), kernel.length(0)), (10, 5, 0, 0));
        assert_eq!((kernel.block(0), kernel.block(b + 1)), (Ok(&[][..]), Err(Bad::NoBlock(b + 1))));
    }

    #[test]
    fn what_is_freed_is_used_again_from_the_end() {
        let mut kernel = Kernel::default();
        let [a, b, c] = [100, 200, 300].map(|len| kernel.alloc(len, 1 << 20).unwrap().0);
        kernel.free(b);
        assert_eq!((kernel.length(b), kernel.block(b)), (0, Err(Bad::NoBlock(b))));
        kernel.free(b);
        kernel.free(c);
        assert_eq!(kernel.alloc(50, 1 << 20).unwrap().0, b, "both are free now");
        kernel.free(a);
        assert_eq!(kernel.length(b), 50);
    }

    #[test]
    fn memory_is_bounded_and_grows_by_doubling() {
        let mut kernel = Kernel::default();
        let refused = |kernel: &mut Kernel, len| kernel.alloc(len, 10_000).unwrap_err().size;
        assert_eq!(refused(&mut kernel, 9_985), 10_001);
        assert_eq!(refused(&mut kernel, u64::MAX), usize::MAX);
        assert_eq!(kernel.size(), 0);
        kernel.alloc(5_000, 10_000).unwrap();
        assert_eq!((kernel.size(), kernel.alloc(10, 10_000).unwrap().1), (5_016, 10_000));
        assert_eq!(refused(&mut kernel, 5_000), 10_064);
        // Many small blocks end, too: each counts with what the host keeps of it.
        let count = (0..).take_while(|_| kernel.alloc(1, 10_000).is_ok()).count();
        assert_eq!(count, 206);
    }

    #[test]
    fn input_output_and_error_are_forgotten_with_their_blocks() {
        let mut kernel = Kernel::default();
        kernel.set_input(b"0123456789", 1 << 20).unwrap();
        assert_eq!((kernel.input(), kernel.load_input::<8>(8)), (16..26, u64::from(u16::from_le_bytes(*b"89"))));
        assert_eq!((kernel.load_input::<1>(10), kernel.load_input::<8>(u64::MAX)), (0, 0));
        let at = kernel.place(b"made", 1 << 20).unwrap().0;
        kernel.set_output(at, 3).unwrap();
        kernel.set_error(at).unwrap();
        assert_eq!((kernel.output(), kernel.error()), (&b"mad"[..], Some(&b"made"[..])));
        kernel.free(at);
        assert_eq!((kernel.output(), kernel.error()), (&b""[..], None));
        kernel.free(16);
        assert_eq!(kernel.input(), 0..0);
        assert!(kernel.set_output(u64::MAX, 2).is_err() && kernel.set_output(16, 1 << 40).is_err());
        assert_eq!(kernel.set_error(99), Err(Bad::NoBlock(99)));
    }

    #[derive(Clone, Debug)]
    enum Op {
        Alloc(u64),
        Free(u64),
        Load(u64),
        Store(u64, u64),
        Output(u64, u64),
        Error(u64),
    }

    fn address() -> impl Strategy<Value = u64> {
        prop_oneof![0..200_u64, (0..40_u64).prop_map(|n| n * 24 + 16), any::<u64>()]
    }

    fn op() -> impl Strategy<Value = Op> {
        prop_oneof![
            prop_oneof![0..40_u64, any::<u64>()].prop_map(Op::Alloc),
            address().prop_map(Op::Free),
            address().prop_map(Op::Load),
            (address(), any::<u64>()).prop_map(|(at, value)| Op::Store(at, value)),
            (address(), prop_oneof![0..64_u64, any::<u64>()]).prop_map(|(at, len)| Op::Output(at, len)),
            address().prop_map(Op::Error),
        ]
    }

    proptest! {
        #[test]
        fn no_plug_in_gets_out_of_its_bounds(ops in proptest::collection::vec(op(), 0..100)) {
            let mut kernel = Kernel::default();
            kernel.set_input(b"input", 2_000).unwrap();
            for op in ops {
                match op {
                    Op::Alloc(len) => drop(kernel.alloc(len, 2_000)),
                    Op::Free(at) => kernel.free(at),
                    Op::Load(at) => drop((kernel.load::<8>(at), kernel.load::<1>(at), kernel.load_input::<8>(at))),
                    Op::Store(at, value) => drop((kernel.store::<8>(at, value), kernel.store::<1>(at, value))),
                    Op::Output(at, len) => drop(kernel.set_output(at, len)),
                    Op::Error(at) => drop(kernel.set_error(at)),
                }
                prop_assert!(kernel.size() <= 2_000 && kernel.output().len() <= 2_000);
                kernel.error();
            }
            let mut blocks: Vec<_> = kernel.blocks.iter().map(Block::range).collect();
            blocks.sort_by_key(|range| range.start);
            prop_assert!(blocks.windows(2).all(|pair| pair[0].end + HEAD <= pair[1].start));
        }
    }
}
