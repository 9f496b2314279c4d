"""The company's REST contract as a black box: does the service at this address keep it, in whatever language it is written?"""
