"""Which bundles this device may run: TUF, asked in a short-lived child process.

- :mod:`edgeopt_agent.trust.checker` is the agent's side: it fetches the fleet's metadata, asks the child, and waits
  for newer metadata where the answer is "not yet".
- :mod:`edgeopt_agent.trust.sources` are the ways by which metadata come: MQTT and HTTP.
- ``python -m edgeopt_agent.trust`` is the child: it alone imports ``tuf`` and ``cryptography``, and its memory goes
  back to the device when it has answered.
- :mod:`edgeopt_agent.trust.metadata` drives python-tuf; :mod:`~edgeopt_agent.trust.floor` and
  :mod:`~edgeopt_agent.trust.judgement` decide without any input or output; :mod:`~edgeopt_agent.trust.state` keeps
  what was verified.

Importing this package imports none of that. Example::

    trust = Trust([MqttMetadata(link)], TrustOptions(directory=data / "trust", root=root_text), Random())
    target = await trust.check(bundle, running=digest)    # raises SignatureError
"""
