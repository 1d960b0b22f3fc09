"""boto3 with a Bedrock key: one invocation; prints everything that came back."""

import boto3

bedrock = boto3.client("bedrock-runtime", region_name="us-east-1")
answer = bedrock.invoke_model(modelId="test-model", body=b"{}")
print(answer["ResponseMetadata"])
print(answer["body"].read().decode())
