/// Where a device gets its boot epoch from: a number that is larger at each boot than at any boot before.
///
/// Sequences start again at 1 at each boot, so the boot epoch is what tells event 1 of today from event 1 of
/// yesterday. What breaks if it does not increase:
///
/// - **It repeats**: the gateway has seen (device, boot, 1), (device, boot, 2), … and takes the new events for
///   copies. It acknowledges them and they have no effect: they are lost without a word, until the sequence
///   passes the last one of the earlier boot.
/// - **It falls**: the gateway takes the events for late ones of a boot that is over, with the same result.
///
/// So an implementation must make the new number durable *before* it returns it, and return an error rather
/// than a guess. Good sources are a counter in flash or EEPROM, a real-time clock with a battery (seconds since
/// 1970 fit into 32 bits until 2106; two boots within one second would repeat), or a server that counts.
/// A random number is none of these.
pub trait BootCounter {
    /// Why there is no number.
    type Error;

    /// Moves to the next boot epoch and returns it. Called once, at start, before a [`Session`](crate::Session)
    /// is made.
    ///
    /// # Errors
    ///
    /// When the number could not be read or made durable. The device must then not publish events.
    fn next_boot(&mut self) -> Result<u32, Self::Error>;
}
