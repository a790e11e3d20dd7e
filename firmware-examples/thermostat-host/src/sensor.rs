use device_sdk::temperature::{Address, TEMPERATURE_REGISTER, Temperature};
use embedded_hal::i2c::{self, ErrorKind, ErrorType, I2c, NoAcknowledgeSource, Operation};
use thiserror::Error;

/// A TMP102 in software, alone on its I²C bus: each read of its temperature register is a new conversion, of the
/// next of these temperatures in degrees Celsius.
pub(crate) struct SoftwareTmp102 {
    address: Address,
    pointer: u8,
    temperatures: Box<dyn Iterator<Item = f64>>,
}

impl SoftwareTmp102 {
    pub(crate) fn new(address: Address, temperatures: impl Iterator<Item = f64> + 'static) -> Self {
        Self { address, pointer: TEMPERATURE_REGISTER, temperatures: Box::new(temperatures) }
    }

    fn read(&mut self, bytes: &mut [u8]) -> Result<(), SoftwareBusError> {
        if self.pointer != TEMPERATURE_REGISTER {
            return Err(SoftwareBusError::Register { pointer: self.pointer });
        }
        let celsius = self.temperatures.next().ok_or(SoftwareBusError::Exhausted)?;
        // What the register cannot hold it clips, as the part does.
        let (min, max) = (Temperature::MIN.sixteenths(), Temperature::MAX.sixteenths());
        let sixteenths = (celsius * 16.0).round().clamp(f64::from(min), f64::from(max)) as i16;
        let temperature = Temperature::from_sixteenths(sixteenths).expect("it was clipped to the register's range");
        let register = temperature.to_register();
        bytes.iter_mut().zip(register).for_each(|(byte, value)| *byte = value);
        Ok(())
    }
}

/// What the software bus refuses.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub(crate) enum SoftwareBusError {
    #[error("nothing answers at address {address:#04x}")]
    Address { address: u8 },
    #[error("the register {pointer:#04x} is not simulated, only the temperature is")]
    Register { pointer: u8 },
    #[error("there are no more temperatures to measure")]
    Exhausted,
}

impl i2c::Error for SoftwareBusError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Address { .. } => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address),
            Self::Register { .. } => ErrorKind::NoAcknowledge(NoAcknowledgeSource::Data),
            Self::Exhausted => ErrorKind::Other,
        }
    }
}

impl ErrorType for SoftwareTmp102 {
    type Error = SoftwareBusError;
}

impl I2c for SoftwareTmp102 {
    fn transaction(&mut self, address: u8, operations: &mut [Operation<'_>]) -> Result<(), SoftwareBusError> {
        if address != self.address as u8 {
            return Err(SoftwareBusError::Address { address });
        }
        for operation in operations {
            match operation {
                Operation::Write([]) => {}
                Operation::Write([pointer]) => self.pointer = *pointer,
                // A second byte would write a register.
                Operation::Write([pointer, ..]) => return Err(SoftwareBusError::Register { pointer: *pointer }),
                Operation::Read(bytes) => self.read(bytes)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use device_sdk::temperature::{SensorError, Tmp102};

    use super::*;

    #[test]
    fn the_driver_reads_what_the_chip_measures_in_its_resolution() {
        let chip = SoftwareTmp102::new(Address::Data, [21.04, -0.04, 500.0, -500.0].into_iter());
        let mut sensor = Tmp102::new(chip, Address::Data);
        let mut read = || sensor.read().map(Temperature::celsius);
        assert_eq!(read(), Ok(21.0625));
        assert_eq!(read(), Ok(-0.0625));
        assert_eq!(read(), Ok(127.9375));
        assert_eq!(read(), Ok(-128.0));
        assert_eq!(read(), Err(SensorError::Bus(SoftwareBusError::Exhausted)));
    }

    #[test]
    fn a_wrong_address_is_not_acknowledged() {
        let chip = SoftwareTmp102::new(Address::Ground, [21.0].into_iter());
        let error = Tmp102::new(chip, Address::Supply).read().unwrap_err();
        assert_eq!(error, SensorError::Bus(SoftwareBusError::Address { address: 0x49 }));
    }
}
