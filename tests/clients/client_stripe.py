"""The Stripe SDK at Keyferry's base URL: it trusts only the roots that it brings along. Prints what came back."""

import os

import stripe

base = os.environ["KEYFERRY_BASE_URL"] + "/stripe"
client = stripe.StripeClient(os.environ["STRIPE_API_KEY"], base_addresses={"api": base}, max_network_retries=0)
answer = client.raw_request("get", "/v1/balance")
print(answer.code, dict(answer.headers))
print(answer.data)
