"""What an operator can see and do, without a front: the command line now, other fronts later."""
