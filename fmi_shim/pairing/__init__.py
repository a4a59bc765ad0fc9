"""How two ranks get a connection: the rendezvous client, hole punching and TCPunch."""
