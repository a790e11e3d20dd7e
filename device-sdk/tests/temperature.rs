//! The TMP102 driver against the data sheet's table and a mocked bus.

use device_sdk::temperature::{Address, RegisterError, SensorError, Temperature, Tmp102};
use embedded_hal::i2c::{ErrorKind, NoAcknowledgeSource};
use embedded_hal_mock::eh1::i2c::{Mock, Transaction};

/// The table of the 12-bit format (SBOS397I, section 6.3.1): sixteenths of a degree Celsius, and the twelve bits.
const TABLE: [(i16, u16); 11] = [
    (127 * 16 + 15, 0x7FF),
    (100 * 16, 0x640),
    (80 * 16, 0x500),
    (75 * 16, 0x4B0),
    (50 * 16, 0x320),
    (25 * 16, 0x190),
    (4, 0x004),
    (0, 0x000),
    (-4, 0xFFC),
    (-25 * 16, 0xE70),
    (-55 * 16, 0xC90),
];

#[test]
fn the_data_sheets_table() {
    for (sixteenths, bits) in TABLE {
        let register = (bits << 4).to_be_bytes();
        let temperature = Temperature::from_sixteenths(sixteenths).unwrap();
        assert_eq!(Temperature::from_register(register), Ok(temperature));
        assert_eq!(temperature.to_register(), register);
        assert_eq!(temperature.sixteenths(), sixteenths);
    }
}

#[test]
fn every_register_value_reads_as_itself_or_is_refused() {
    let mut readable = 0;
    for bits in 0..=u16::MAX {
        let register = bits.to_be_bytes();
        match Temperature::from_register(register) {
            Ok(temperature) => {
                readable += 1;
                assert_eq!(temperature.to_register(), register);
            }
            Err(RegisterError::ExtendedMode) => assert_eq!(bits & 0x0F, 1),
            Err(error) => assert_eq!(error, RegisterError::NotATemperature { register }),
        }
    }
    assert_eq!(readable, 4096);
    assert_eq!(Temperature::from_sixteenths(2048), None);
    assert_eq!(Temperature::from_sixteenths(-2049), None);
}

#[test]
fn units() {
    let quarter_below = Temperature::from_sixteenths(-4).unwrap();
    assert_eq!(quarter_below.celsius(), -0.25);
    let boiling = Temperature::from_sixteenths(1_600).unwrap();
    assert_eq!((boiling.celsius(), boiling.fahrenheit()), (100.0, 212.0));
    assert_eq!(Temperature::MIN.celsius(), -128.0);
    assert_eq!(Temperature::MAX.celsius(), 127.9375);
}

#[test]
fn a_reading_is_one_transfer_at_the_address_of_the_pin() {
    for (address, number) in
        [(Address::Ground, 0x48), (Address::Supply, 0x49), (Address::Data, 0x4A), (Address::Clock, 0x4B)]
    {
        let transfer = Transaction::write_read(number, vec![0x00], vec![0x19, 0x00]);
        let mut sensor = Tmp102::new(Mock::new(&[transfer]), address);
        assert_eq!(sensor.read().unwrap().celsius(), 25.0);
        sensor.release().done();
    }
}

#[test]
fn errors_name_what_failed() {
    let nack = ErrorKind::NoAcknowledge(NoAcknowledgeSource::Address);
    let transfers = [
        Transaction::write_read(0x48, vec![0x00], vec![0, 0]).with_error(nack),
        Transaction::write_read(0x48, vec![0x00], vec![0x19, 0x01]),
        Transaction::write_read(0x48, vec![0x00], vec![0xFF, 0xFF]),
    ];
    let mut sensor = Tmp102::new(Mock::new(&transfers), Address::Ground);
    assert_eq!(sensor.read(), Err(SensorError::Bus(nack)));
    assert_eq!(sensor.read(), Err(SensorError::Register(RegisterError::ExtendedMode)));
    let register = [0xFF, 0xFF];
    assert_eq!(sensor.read(), Err(SensorError::Register(RegisterError::NotATemperature { register })));
    sensor.release().done();
}
