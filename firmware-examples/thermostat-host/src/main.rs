//! A thermostat as a host program: the device SDK over real MQTT with an embedded-hal sensor.

fn main() {}
