//! A temperature sensor on an I²C bus: Texas Instruments' TMP102, and parts with the same register, on any bus
//! that implements [`embedded_hal::i2c::I2c`].
//!
//! Section numbers are those of the data sheet SBOS397I (June 2024).

use embedded_hal::i2c::I2c;
use thiserror::Error;

/// The pointer of the temperature register (section 6.5.1).
pub const TEMPERATURE_REGISTER: u8 = 0x00;

/// The sensor's address: what its pin ADD0 is connected to (section 6.3.4).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Address {
    /// Ground: 0x48.
    Ground = 0x48,
    /// Supply, V+: 0x49.
    Supply = 0x49,
    /// Data, SDA: 0x4A.
    Data = 0x4A,
    /// Clock, SCL: 0x4B.
    Clock = 0x4B,
}

/// A TMP102 in its mode after power-up: 12 bits, four conversions a second. Until the first conversion is done it
/// reads 0 °C (section 6.5.2).
#[derive(Debug)]
pub struct Tmp102<I2C> {
    bus: I2C,
    address: Address,
}

impl<I2C: I2c> Tmp102<I2C> {
    /// A sensor on this bus. Nothing is sent yet.
    pub fn new(bus: I2C, address: Address) -> Self {
        Self { bus, address }
    }

    /// Reads the last conversion.
    ///
    /// # Errors
    ///
    /// [`SensorError::Bus`] if the transfer failed, [`SensorError::Register`] if the bytes are not a
    /// temperature.
    pub fn read(&mut self) -> Result<Temperature, SensorError<I2C::Error>> {
        let mut register = [0; 2];
        self.bus.write_read(self.address as u8, &[TEMPERATURE_REGISTER], &mut register).map_err(SensorError::Bus)?;
        Ok(Temperature::from_register(register)?)
    }

    /// Gives the bus back.
    pub fn release(self) -> I2C {
        self.bus
    }
}

/// A temperature as the sensor measures it: a multiple of 0.0625 °C from -128 °C to 127.9375 °C (the part itself
/// is specified from -40 °C to 125 °C).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Temperature {
    sixteenths: i16,
}

impl Temperature {
    /// The lowest temperature that the register can hold, -128 °C.
    pub const MIN: Self = Self { sixteenths: -2048 };
    /// The highest temperature that the register can hold, 127.9375 °C.
    pub const MAX: Self = Self { sixteenths: 2047 };

    /// A temperature of so many sixteenths of a degree Celsius, or `None` if 12 bits cannot hold it.
    pub fn from_sixteenths(sixteenths: i16) -> Option<Self> {
        let temperature = Self { sixteenths };
        (Self::MIN..=Self::MAX).contains(&temperature).then_some(temperature)
    }

    /// Reads the register's two bytes: 12 bits in two's complement, the most significant first, then four zeros
    /// (sections 6.3.1 and 6.5.2).
    ///
    /// # Errors
    ///
    /// [`RegisterError`] if the low four bits are not zero.
    pub fn from_register(register: [u8; 2]) -> Result<Self, RegisterError> {
        match register[1] & 0x0F {
            0 => Ok(Self { sixteenths: i16::from_be_bytes(register) >> 4 }),
            1 => Err(RegisterError::ExtendedMode),
            _ => Err(RegisterError::NotATemperature { register }),
        }
    }

    /// The register's two bytes for this temperature.
    pub fn to_register(self) -> [u8; 2] {
        (self.sixteenths << 4).to_be_bytes()
    }

    /// In sixteenths of a degree Celsius: exact, and without floating point.
    pub fn sixteenths(self) -> i16 {
        self.sixteenths
    }

    /// In degrees Celsius; exact.
    pub fn celsius(self) -> f32 {
        f32::from(self.sixteenths) / 16.0
    }

    /// In degrees Fahrenheit.
    pub fn fahrenheit(self) -> f32 {
        f32::from(self.sixteenths) * (9.0 / 80.0) + 32.0
    }
}

/// Why there is no reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum SensorError<E> {
    /// The bus reported an error: wiring, address, or another part that holds the bus.
    #[error("the bus reported an error while the temperature was read: {0:?}")]
    Bus(E),
    /// The sensor answered with something else than a temperature in 12 bits.
    #[error(transparent)]
    Register(#[from] RegisterError),
}

/// Why the register's bytes are not a temperature in 12 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegisterError {
    /// The sensor is in its extended mode of 13 bits (section 6.4.2): clear the EM bit of its configuration.
    #[error("the sensor is in its extended mode (13 bits), the driver reads 12 bits: clear the EM bit")]
    ExtendedMode,
    /// Bits that are always zero are set: no TMP102 answers at this address, or the bus is disturbed.
    #[error("the register reads {register:02X?}, which is not a temperature of a TMP102")]
    NotATemperature {
        /// The two bytes read.
        register: [u8; 2],
    },
}
