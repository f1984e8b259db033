"""The methods a device offers, grouped as the device's libraries group them."""
