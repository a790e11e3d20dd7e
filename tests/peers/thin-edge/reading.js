const utf8 = new TextDecoder();

export function onMessage(message) {
  const device = message.topic.split("/")[1];
  const { time, fahrenheit } = JSON.parse(utf8.decode(message.payload));
  const celsius = Math.round(((fahrenheit - 32) / 1.8) * 100) / 100;
  const alarm = fahrenheit > 80;
  return { topic: `results/${device}`, payload: JSON.stringify({ device, time, celsius, alarm }) };
}
