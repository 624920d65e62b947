-- What is known of a freeze is renewed with what is known of the clients.
CREATE TRIGGER freeze_begun AFTER INSERT ON freezes
BEGIN UPDATE clients_version SET version = random(); END;
CREATE TRIGGER freeze_ended AFTER DELETE ON freezes
BEGIN UPDATE clients_version SET version = random(); END;
