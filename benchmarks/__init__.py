"Measurements: what this library saves, against the same work done in another order. See README.md."
