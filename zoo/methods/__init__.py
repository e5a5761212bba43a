"""One LightningModule a method; it wires components and losses."""
