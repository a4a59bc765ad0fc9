"""Prices in USD: AWS's list prices, and those that FMI was published with. Each table names its source and date."""

# AWS's pricing pages (Lambda, S3, Step Functions), us-east-1, x86, without free tiers, as of 2026.
USD_PER_GB_SECOND = 1.66667e-05
USD_PER_LAMBDA_REQUEST = 2e-07
USD_PER_TMP_GB_SECOND = 3.09e-08
USD_PER_S3_PUT = 5e-06
USD_PER_S3_GET = 4e-07
USD_PER_STATE_TRANSITION = 2.5e-05
USD_PER_EXPRESS_REQUEST = 1e-06
USD_PER_EXPRESS_GB_SECOND = 1.667e-05

# AWS's pricing pages (Fargate Linux x86, VPC, Secrets Manager, Elastic Load Balancing), us-east-1, as of 2026.
# A secret costs 0.40 a month.
USD_PER_FARGATE_VCPU_HOUR = 0.04048
USD_PER_FARGATE_GB_HOUR = 0.004445
USD_PER_PUBLIC_IPV4_HOUR = 0.005
USD_PER_NETWORK_BALANCER_HOUR = 0.0225
USD_PER_SECRET_HOUR = 0.4 / 730
USD_PER_SECRET_REQUEST = 5e-06

# config/fmi.json of FMI's repository (2023). Its S3 prices are not those of us-east-1 above. The price of a GiB-second
# is the same, and stands above alone.
PUBLISHED_S3_UPLOAD_USD = 5.4e-06
PUBLISHED_S3_DOWNLOAD_USD = 4.3e-07
PUBLISHED_REDIS_USD_PER_HOUR = 0.0038
PUBLISHED_VM_USD_PER_HOUR = 0.0134
