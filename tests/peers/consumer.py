"""What a person writes who knows Python: paho-mqtt and sqlite3, a transaction for each reading.

consumer.py PORT DATABASE [--publish]

WAL and synchronous=FULL, a reading is acknowledged (manual_ack) after its commit. paho calls on_message for one message
after the other, so there is nothing that several could share a transaction in.
"""

import json
import sqlite3
import sys

import paho.mqtt.client as mqtt

LIMIT = 80.0
port, data, publish = int(sys.argv[1]), sys.argv[2], "--publish" in sys.argv

database = sqlite3.connect(data, isolation_level=None)
database.execute("PRAGMA journal_mode = WAL")
database.execute("PRAGMA synchronous = FULL")
database.execute(
    "CREATE TABLE IF NOT EXISTS readings"
    " (id INTEGER PRIMARY KEY, device TEXT, time INTEGER, celsius REAL, alarm INTEGER)"
)


def on_connect(client, userdata, flags, reason, properties):
    client.subscribe("sensors/+/temperature", qos=1)


def on_message(client, userdata, message):
    device = message.topic.split("/")[1]
    reading = json.loads(message.payload)
    celsius = round((reading["fahrenheit"] - 32.0) / 1.8, 2)
    alarm = reading["fahrenheit"] > LIMIT
    database.execute(
        "INSERT INTO readings (device, time, celsius, alarm) VALUES (?, ?, ?, ?)",
        (device, reading["time"], celsius, alarm),
    )
    if publish:
        result = {"device": device, "time": reading["time"], "celsius": celsius, "alarm": alarm}
        client.publish(f"results/{device}", json.dumps(result, separators=(",", ":")), qos=1)
    client.ack(message.mid, message.qos)


client = mqtt.Client(
    mqtt.CallbackAPIVersion.VERSION2, client_id="bench-consumer", clean_session=False, manual_ack=True
)
client.max_inflight_messages_set(1000)
client.on_connect = on_connect
client.on_message = on_message
client.connect("127.0.0.1", port)
client.loop_forever()
