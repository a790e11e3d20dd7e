//! The gateway's own MQTT broker, whose PUBACK can wait for a commit.
